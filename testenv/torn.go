package testenv

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// TearBatch restarts the server as if it had stopped after it stored the first few messages of an atomic batch, at least
// one and not all. The messages are increments of different counters of a stream that has one replica and belongs to the
// global account.
func (n *NATS) TearBatch(stream string, stored int, batch []*nats.Msg) {
	n.tb.Helper()
	id := nuid.Next()
	for i, msg := range batch {
		msg.Header.Set("Nats-Batch-Id", id)
		msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
	}
	batch[len(batch)-1].Header.Set("Nats-Batch-Commit", "1")
	staged := batchFolder(id)
	nc := n.Connect()
	defer nc.Close()
	js, err := nc.JetStream()
	n.must(err)
	_, err = js.AddStream(&nats.StreamConfig{Name: staged})
	n.must(err)
	var first []*nats.Msg
	for _, msg := range batch[:stored] {
		first = append(first, added(js, stream, msg))
	}
	n.storeAsIs(map[string][]*nats.Msg{stream: first, staged: batch})
	n.Stop()
	n.must(os.MkdirAll(n.folder(stream, "batches"), 0o700))
	n.must(os.Rename(n.folder(staged), n.folder(stream, "batches", staged)))
	n.Start()
}

// batchFolder is where the server keeps the messages of a batch before it commits it. It is laid out like a stream of that
// name.
func batchFolder(id string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(id))
	name := sum[:8]
	for i, b := range name {
		name[i] = digits[int(b)%len(digits)]
	}
	return string(name)
}

// added is the message as the server stores it: with the new sum.
func added(js nats.JetStreamContext, stream string, inc *nats.Msg) *nats.Msg {
	var value struct {
		Sum string `json:"val"`
	}
	if last, err := js.GetLastMsg(stream, inc.Subject); err == nil {
		_ = json.Unmarshal(last.Data, &value)
	}
	sum, _ := new(big.Int).SetString("0"+value.Sum, 10)
	n, _ := new(big.Int).SetString(inc.Header.Get("Nats-Incr"), 10)
	return &nats.Msg{Subject: inc.Subject, Header: inc.Header, Data: []byte(`{"val":"` + sum.Add(sum, n).String() + `"}`)}
}

// storeAsIs puts messages into streams which the server would change or refuse. It gives access to a stream's store when it
// restores the stream from a backup.
func (n *NATS) storeAsIs(messages map[string][]*nats.Msg) {
	n.tb.Helper()
	n.Stop()
	configs, backups := map[string]*server.StreamConfig{}, map[string]io.Reader{}
	for stream := range messages {
		configs[stream], backups[stream] = n.backup(n.folder(stream))
		n.must(os.RemoveAll(n.folder(stream)))
	}
	n.Start()
	for stream, all := range messages {
		restored, err := n.srv.GlobalAccount().RestoreStream(configs[stream], backups[stream])
		n.must(err)
		for _, msg := range all {
			header := []byte("NATS/1.0\r\n")
			for name := range msg.Header {
				header = append(header, name+": "+msg.Header.Get(name)+"\r\n"...)
			}
			_, _, err := restored.Store().StoreMsg(msg.Subject, append(header, "\r\n"...), msg.Data, 0)
			n.must(err)
		}
	}
}

// backup packs the folder of a stream as the server expects it.
func (n *NATS) backup(folder string) (*server.StreamConfig, io.Reader) {
	n.tb.Helper()
	var out bytes.Buffer
	packed := s2.NewWriter(&out)
	files := tar.NewWriter(packed)
	n.must(filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		n.must(err)
		data, err := os.ReadFile(path)
		n.must(err)
		n.must(files.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))}))
		_, err = files.Write(data)
		return err
	}))
	n.must(files.Close())
	n.must(packed.Close())
	data, err := os.ReadFile(filepath.Join(folder, server.JetStreamMetaFile))
	n.must(err)
	var meta server.FileStreamInfo
	n.must(json.Unmarshal(data, &meta))
	return &meta.StreamConfig, &out
}

func (n *NATS) folder(names ...string) string {
	return filepath.Join(append([]string{n.opts.StoreDir, "jetstream", "$G", "streams"}, names...)...)
}

func (n *NATS) must(err error) {
	n.tb.Helper()
	if err != nil {
		n.tb.Fatal(err)
	}
}
