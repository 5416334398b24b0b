package testenv

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// StoreRaw publishes a message with a header block as it is, whose end no client library checks, and returns its sequence when a
// stream has stored it.
func (n *NATS) StoreRaw(tb testing.TB, subject, header, payload string) uint64 {
	tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", strings.TrimPrefix(n.URL(), "nats://"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		tb.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB stored 1\r\nHPUB %s stored %d %d\r\n%s%s\r\n",
		subject, len(header), len(header)+len(payload), header, payload)
	if err != nil {
		tb.Fatal(err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		line := lines.Text()
		var ack struct{ Seq uint64 }
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &ack) == nil && ack.Seq > 0 {
			return ack.Seq
		}
		if strings.HasPrefix(line, "{") || strings.HasPrefix(line, "-ERR") {
			tb.Fatalf("store %s: %s", subject, line)
		}
	}
	tb.Fatalf("store %s: the server ends the connection", subject)
	return 0
}

// ForgedHeaders are header blocks in which a publisher tries to pass for the server that reads its message: the first kinds can
// be told apart from the server's headers, the others keep nats.go from reading the server's.
func ForgedHeaders(sequence, subject string) (readable, unreadable map[string]string) {
	forged := "Nats-Sequence: " + sequence + "\r\nNats-Subject: " + subject + "\r\nNats-Time-Stamp: 2001-01-01T00:00:00Z\r\n" +
		"Nats-Stream: GOFER_JOBS\r\nNats-Num-Pending: 5\r\nNats-Last-Sequence: 7\r\n"
	compact := strings.Repeat("a:b\n", 120) // shorter than they would be written: the missing bytes make up for the server's
	readable = map[string]string{
		"forged":   "NATS/1.0\r\n" + forged + "\r\n",
		"twice":    "NATS/1.0\r\n" + forged + forged + "\r\n",
		"lower":    "NATS/1.0\r\n" + strings.ToLower(forged) + "\r\n",
		"empty":    "NATS/1.0\r\nNats-Sequence:\r\nStatus: 404\r\nNats-Msg-Size: 7\r\n\r\n",
		"inline":   "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: " + sequence + "\r\n\r\n",
		"openline": "NATS/1.0\r\nx",
	}
	unreadable = map[string]string{
		"ended":      "NATS/1.0\r\n" + forged + "\r\nX: y\r\n\r\n",
		"status":     "NATS/1.0\r\nStatus: 404\r\n\r\nX: y\r\n\r\n",
		"eob":        "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: " + sequence + "\r\n\r\nX: y\r\n\r\n",
		"503":        "NATS/1.0 503\r\n\r\n\r\n",
		"none":       "NATS/1.0\r\n\r\n\r\n",
		"rubbish":    "NATS/1.0\r\nrubbish\r\n\r\n",
		"headless":   "rubbish\r\n\r\n",
		"compact":    "NATS/1.0\n" + forged + compact + "\n\r\n",
		"compact404": "NATS/1.0 404\n" + forged + compact + "\n\r\n",
	}
	return readable, unreadable
}
