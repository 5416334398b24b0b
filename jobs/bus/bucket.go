package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// bucket is a key-value bucket. Its calls end at once if the server refuses them to this user, instead of after a time-out. Its
// errors say what to do.
type bucket struct {
	jetstream.KeyValue
	client *Client
}

// Bucket binds one of the installation's buckets, such as "proxies". Errors, also those of the bucket's own calls:
// ErrNotSetUp, ErrNoLeader, ErrPermission, ErrBucketFull; any other error of nats.go unchanged.
func (c *Client) Bucket(ctx context.Context, kind string) (jetstream.KeyValue, error) {
	name := c.names.Bucket(kind)
	// Binding sends requests to these subjects; a refusal of one of them ends the call.
	kv, err := call(ctx, c.refusals, func(ctx context.Context) (jetstream.KeyValue, error) {
		return c.js.KeyValue(ctx, name)
	}, api+"STREAM.INFO.KV_"+name)
	if err != nil {
		return nil, c.Explain("look for bucket "+name, err)
	}
	return bucket{kv, c}, nil
}

// write runs do, which publishes to the subject of a key (NATS ADR-8), and explains its error.
func (b bucket) write(ctx context.Context, key string, do func(context.Context) error) error {
	err := b.client.refusals.watch(ctx, do, "$KV."+b.Bucket()+"."+key)
	action := "write " + key + " to bucket " + b.Bucket()
	if IsFull(err) {
		return fmt.Errorf("%s: %w (%w)", action, ErrBucketFull, err)
	}
	// A bucket is a stream, so the error can say that it is missing or without a leader.
	return b.client.ExplainPublish(ctx, action, "KV_"+b.Bucket(), err)
}

// Put stores a value and returns its revision. Its errors are those of Bucket.
func (b bucket) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	err = b.write(ctx, key, func(ctx context.Context) (err error) {
		revision, err = b.KeyValue.Put(ctx, key, value)
		return err
	})
	return revision, err
}

// PutString is Put for text.
func (b bucket) PutString(ctx context.Context, key, value string) (revision uint64, err error) {
	return b.Put(ctx, key, []byte(value))
}

// Delete puts a delete marker in place of a value. A key that does not exist is no error.
func (b bucket) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	return b.write(ctx, key, func(ctx context.Context) error { return b.KeyValue.Delete(ctx, key, opts...) })
}

// Get reads the newest value of a key. nats.go asks a replica or the stream's leader, so a refusal of either request ends the
// call. Errors: jetstream.ErrKeyNotFound, and those of Bucket.
func (b bucket) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	stream := "KV_" + b.Bucket()
	entry, err := call(ctx, b.client.refusals, func(ctx context.Context) (jetstream.KeyValueEntry, error) {
		return b.KeyValue.Get(ctx, key)
	}, api+"DIRECT.GET."+stream, api+"STREAM.MSG.GET."+stream)
	return entry, b.client.Explain("read "+key+" of bucket "+b.Bucket(), err)
}
