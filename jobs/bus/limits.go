package bus

import (
	"context"
	"fmt"
	"slices"
	"strconv"

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

// account has the limits of this user's account and their current use, as JetStream reports them. nats.go leaves
// out some fields.
type account struct {
	apiAnswer
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

// account asks for the limits of this user's account. Errors as Explain has them: an answer with an error has no limits, and
// limits of zero would forecast that the server refuses everything.
func (c *Client) account(ctx context.Context) (a account, err error) {
	err = c.askAPI(ctx, "INFO", map[string]any{}, &a)
	return a, c.Explain("ask for the limits of the account", err)
}

// forecast predicts which missing streams and consumers the server would refuse to create, by the account's limits and
// the lack of a cluster. Streams and consumers are passed in the order of their creation.
type forecast struct {
	client  *Client
	account account
	// What would be created so far, by tier. The order of creation decides which stream is refused.
	streams map[string]int
	bytes   map[string]int64 // reserved
	// consumers counts the consumers of each stream, existing ones included.
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

// tierName returns the name of the account's limits for streams with so many replicas; empty if all streams have the same
// limits.
func (a *account) tierName(replicas int) string {
	if len(a.Tiers) == 0 {
		return ""
	}
	return fmt.Sprint("R", replicas)
}

// tierOf returns the limits for streams with so many replicas, and how often each byte counts: without tiers the account counts
// every replica. An account with tiers may lack the one that was asked for; its limits are then zero.
func (a *account) tierOf(replicas int) (limits usage, counted int64) {
	if name := a.tierName(replicas); name != "" {
		return a.Tiers[name], 1
	}
	return a.usage, int64(max(1, replicas))
}

// streamRefusal counts a stream that would be created, and returns the code and the text with which the server would refuse it;
// a zero code if it would not.
func (f *forecast) streamRefusal(want streamConfig) (code jetstream.ErrorCode, text string) {
	// Without tiers, the account counts every replica; with tiers, each tier counts streams once.
	tier, tierUsage, replicas := f.account.tierName(want.Replicas), f.account.usage, int64(want.Replicas)
	if tier != "" {
		var ok bool
		if tierUsage, ok = f.account.Tiers[tier]; !ok {
			return codeNoTier, "no JetStream default or applicable tiered limit present"
		}
		replicas = 1
	}
	f.streams[tier]++
	// A stream without a bound counts as one byte, so that an account without storage refuses it.
	f.bytes[tier] += max(1, want.MaxBytes) * replicas
	switch {
	case f.lacksCluster(want):
		return codeNoCluster, textNoCluster
	case tierUsage.Limits.BytesRequired && want.MaxBytes <= 0:
		return codeBytesRequired, "account requires a stream config to have max bytes set"
	case tierUsage.Limits.MaxStreamBytes > 0 && want.MaxBytes > tierUsage.Limits.MaxStreamBytes:
		return codeBytesPerStream, "stream max bytes exceeds account limit max stream bytes"
	case tierUsage.Limits.MaxStreams > 0 && tierUsage.Streams+f.streams[tier] > tierUsage.Limits.MaxStreams:
		return codeMaxStreams, "maximum number of streams reached"
	case tierUsage.Limits.MaxStorage >= 0 && tierUsage.Reserved+f.bytes[tier] > tierUsage.Limits.MaxStorage:
		return codeStorage, "insufficient storage resources available"
	}
	return 0, ""
}

// changeRefusal returns the refusal of a change of one setting of a stream; a zero code if the server would accept it.
func (f *forecast) changeRefusal(want streamConfig, d Difference) (code jetstream.ErrorCode, text string) {
	switch d.Field {
	case "num_replicas":
		if f.lacksCluster(want) {
			return codeNoCluster, textNoCluster
		}
	case "max_bytes":
		have, _ := strconv.ParseInt(d.Have, 10, 64) // zero for "unlimited", which reserves nothing
		// Only the growth is reserved.
		want.MaxBytes -= max(0, have)
		f.streams[f.account.tierName(want.Replicas)]--
		return f.streamRefusal(want)
	}
	return 0, ""
}

// consumerRefusal counts a consumer that would be created, and returns its refusal; a zero code for none. The stream's replicas
// decide which limits hold.
func (f *forecast) consumerRefusal(want durable, replicas int) (code jetstream.ErrorCode, text string) {
	f.consumers[want.stream]++
	tierUsage := f.account.usage
	if tier := f.account.tierName(replicas); tier != "" {
		tierUsage = f.account.Tiers[tier]
	}
	if limit := tierUsage.Limits.MaxConsumers; limit > 0 && f.consumers[want.stream] > limit {
		return codeMaxConsumers, "maximum consumers limit reached"
	}
	return 0, ""
}

// foresee sets in each difference why the server would refuse its repair, so that an owner learns of a refusal before
// anything is changed.
func (c *Client) foresee(ctx context.Context, s Settings, found []Difference) error {
	f, err := c.forecast(ctx)
	if err != nil {
		return err
	}
	byName := map[string][]*Difference{}
	for i := range found {
		byName[found[i].Name] = append(byName[found[i].Name], &found[i])
	}
	for _, want := range s.streams(c.names) {
		f.refuseStream(ctx, want, byName["stream "+want.Name])
	}
	for _, want := range s.durables(c.names) {
		streamRefused := slices.ContainsFunc(byName["stream "+want.stream], func(d *Difference) bool { return d.Refused != "" })
		f.refuseConsumer(ctx, want, s.Replicas, streamRefused, byName[want.String()])
	}
	return nil
}

// refuseStream sets the refusals of the differences of one stream.
func (f *forecast) refuseStream(ctx context.Context, want streamConfig, found []*Difference) {
	for _, d := range found {
		if d.Repair != ByCreation {
			d.refuse(f.changeRefusal(want, *d))
			continue
		}
		d.refuse(f.streamRefusal(want))
		if other := f.client.otherStream(ctx, want); other != "" {
			d.refuse(codeSubjectsOverlap, "subjects overlap with an existing stream: "+other+" is in the way")
		}
	}
}

// refuseConsumer sets the refusal of a missing consumer, and counts a consumer that exists.
func (f *forecast) refuseConsumer(ctx context.Context, want durable, replicas int, streamRefused bool, found []*Difference) {
	i := slices.IndexFunc(found, func(d *Difference) bool { return d.Repair == ByCreation })
	if i < 0 {
		f.consumers[want.stream]++
		return
	}
	if streamRefused {
		found[i].Refused = "its stream is missing"
		return
	}
	found[i].refuse(f.consumerRefusal(want, replicas))
	if others := f.client.otherConsumers(ctx, want); want.readsJobs() && others != "" {
		found[i].refuse(codeWQNotUnique, "filtered consumer not unique on workqueue stream: "+others+" is in the way")
	}
}

// refuse sets why the server would refuse the repair of a difference. An earlier refusal stays: it names the first
// thing to do.
func (d *Difference) refuse(code jetstream.ErrorCode, text string) {
	// Only the first refusal counts, because later refusals follow from it.
	if code != 0 && d.Refused == "" {
		d.Code, d.Refused = code, fmt.Sprintf("the server refuses that: %s (error %d)", text, code)
	}
}
