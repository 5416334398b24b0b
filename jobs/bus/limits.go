package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The refusals that an account's limits cause.
const (
	codeMaxConsumers   jetstream.ErrorCode = 10026
	codeMaxStreams     jetstream.ErrorCode = 10027
	codeNoCluster      jetstream.ErrorCode = 10074
	codeBytesRequired  jetstream.ErrorCode = 10113
	codeNoTier         jetstream.ErrorCode = 10120
	codeBytesPerStream jetstream.ErrorCode = 10122
)

// account holds the limits of this user's account and what is used of them, as JetStream reports them. nats.go leaves
// out some fields.
type account struct {
	usage
	Tiers map[string]usage `json:"tiers"`
}

type usage struct {
	Reserved int64 `json:"reserved_storage"`
	Streams  int   `json:"streams"`
	Limits   struct {
		MaxStorage     int64 `json:"max_storage"` // below zero for none
		MaxStreams     int   `json:"max_streams"`
		MaxConsumers   int   `json:"max_consumers"` // of one stream
		MaxStreamBytes int64 `json:"storage_max_stream_bytes"`
		BytesRequired  bool  `json:"max_bytes_required"`
	} `json:"limits"`
}

// account asks for the limits of this user's account. Errors as Explain has them.
func (c *Client) account(ctx context.Context) (a account, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: api + "INFO"})
	if err == nil {
		err = json.Unmarshal(msg.Data, &a)
	}
	return a, c.Explain("ask for the limits of the account", err)
}

// forecast predicts which missing streams and consumers the server would refuse to create, by the account's limits and
// the lack of a cluster. Streams and consumers are passed in the order of their creation.
type forecast struct {
	client  *Client
	account account
	// Both begin with what the account uses already. The order of creation decides which stream is refused.
	streams map[string]int   // that would be created, by tier
	bytes   map[string]int64 // that would be reserved, by tier
	// consumers are those of each stream, there already or to be created.
	consumers map[string]int
}

// forecast asks for the account once; the methods of the result ask the server nothing more.
func (c *Client) forecast(ctx context.Context) (*forecast, error) {
	a, err := c.account(ctx)
	return &forecast{client: c, account: a, streams: map[string]int{}, bytes: map[string]int64{}, consumers: map[string]int{}}, err
}

const textNoCluster = "replicas > 1 not supported in non-clustered mode"

// lacksCluster reports whether replicas need a cluster that is missing. It is false if that is not known: the connected
// server may not belong to the domain.
func (f *forecast) lacksCluster(want streamConfig) bool {
	// Behind a leaf node the connected server says nothing about the domain's cluster.
	return want.Replicas > 1 && f.client.domain == "" && f.client.nc.ConnectedClusterName() == ""
}

// tier returns the name of the account's limits for streams with so many replicas; empty if all streams have the same
// limits.
func (f *forecast) tier(replicas int) string {
	if len(f.account.Tiers) == 0 {
		return ""
	}
	return fmt.Sprint("R", replicas)
}

// stream counts a stream that would be created, and returns the code and the text with which the server would refuse it;
// a zero code if it would not.
func (f *forecast) stream(want streamConfig) (code jetstream.ErrorCode, text string) {
	// Without tiers, the account counts every replica; with tiers, each tier counts streams once.
	tier, of, replicas := f.tier(want.Replicas), f.account.usage, int64(want.Replicas)
	if tier != "" {
		var ok bool
		if of, ok = f.account.Tiers[tier]; !ok {
			return codeNoTier, "no JetStream default or applicable tiered limit present"
		}
		replicas = 1
	}
	f.streams[tier]++
	// A stream without a bound reserves nothing, but counts as one byte, so that an account without storage
	// refuses it.
	f.bytes[tier] += max(1, want.MaxBytes) * replicas
	switch {
	case f.lacksCluster(want):
		return codeNoCluster, textNoCluster
	case of.Limits.BytesRequired && want.MaxBytes <= 0:
		return codeBytesRequired, "account requires a stream config to have max bytes set"
	case of.Limits.MaxStreamBytes > 0 && want.MaxBytes > of.Limits.MaxStreamBytes:
		return codeBytesPerStream, "stream max bytes exceeds account limit max stream bytes"
	case of.Limits.MaxStreams > 0 && of.Streams+f.streams[tier] > of.Limits.MaxStreams:
		return codeMaxStreams, "maximum number of streams reached"
	case of.Limits.MaxStorage >= 0 && of.Reserved+f.bytes[tier] > of.Limits.MaxStorage:
		return codeStorage, "insufficient storage resources available"
	}
	return 0, ""
}

// change returns the refusal of a change of one setting of a stream; a zero code if the server would accept it.
func (f *forecast) change(want streamConfig, d Difference) (code jetstream.ErrorCode, text string) {
	switch d.Field {
	case "num_replicas":
		if f.lacksCluster(want) {
			return codeNoCluster, textNoCluster
		}
	case "max_bytes":
		have, _ := strconv.ParseInt(d.Have, 10, 64) // none is "unlimited", and reserves nothing
		// Only the growth is reserved.
		want.MaxBytes -= max(0, have)
		f.streams[f.tier(want.Replicas)]--
		return f.stream(want)
	}
	return 0, ""
}

// consumer counts a consumer that would be created, and returns its refusal; a zero code for none. The limits are those for
// streams with so many replicas.
func (f *forecast) consumer(want durable, replicas int) (code jetstream.ErrorCode, text string) {
	f.consumers[want.stream]++
	of := f.account.usage
	if tier := f.tier(replicas); tier != "" {
		of = f.account.Tiers[tier]
	}
	if limit := of.Limits.MaxConsumers; limit > 0 && f.consumers[want.stream] > limit {
		return codeMaxConsumers, "maximum consumers limit reached"
	}
	return 0, ""
}

// foresee sets in each difference why the server would refuse its repair. gofer setup --dry-run shows it, so that an
// owner learns of a refusal before anything is changed.
func (c *Client) foresee(ctx context.Context, s Settings, found []Difference) error {
	f, err := c.forecast(ctx)
	if err != nil {
		return err
	}
	of := func(name string) (out []*Difference) {
		for i := range found {
			if found[i].Name == name {
				out = append(out, &found[i])
			}
		}
		return out
	}
	for _, want := range s.streams(c.names) {
		for _, d := range of("stream " + want.Name) {
			if d.Repair != ByCreation {
				d.refuse(f.change(want, *d))
				continue
			}
			d.refuse(f.stream(want))
			if other := c.otherStream(ctx, want); other != "" {
				d.refuse(codeSubjectsOverlap, "subjects overlap with an existing stream: "+other+" is in the way")
			}
		}
	}
	for _, want := range s.durables(c.names) {
		there := true
		for _, d := range of(want.String()) {
			if d.Repair != ByCreation {
				continue
			}
			there = false
			// Its stream is refused, so it cannot be created at all.
			if slices.ContainsFunc(of("stream "+want.stream), func(s *Difference) bool { return s.Refused != "" }) {
				d.Refused = "its stream is missing"
				continue
			}
			d.refuse(f.consumer(want, s.Replicas))
			if others := c.otherConsumers(ctx, want); want.readsJobs() && others != "" {
				d.refuse(codeWQNotUnique, "filtered consumer not unique on workqueue stream: "+others+" is in the way")
			}
		}
		// An existing consumer counts in the limit, too.
		if there {
			f.consumers[want.stream]++
		}
	}
	return nil
}

// refuse sets why the server would refuse the repair of a difference. An earlier refusal stays: it names the first
// thing to do.
func (d *Difference) refuse(code jetstream.ErrorCode, text string) {
	// The first refusal stays: what comes later follows from it.
	if code != 0 && d.Refused == "" {
		d.Code, d.Refused = code, fmt.Sprintf("the server refuses that: %s (error %d)", text, code)
	}
}
