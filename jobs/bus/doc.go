// Package bus is gofer on NATS JetStream: the streams and their settings, and the Client that submits jobs, waits for
// their results, and does a worker's share of keeping the promise that every accepted job ends in exactly one of them.
//
// The promise rests on the server, not on acks: an ack is taken from anybody and proves nothing. A result is stored
// under a guard (no message may be on its subject yet), so the first one wins for as long as it is kept, and only what
// was stored is republished to subscribers. A job that waits is stored under the same guard.
//
// Nothing that a client does here needs the right to create a consumer, except Follow and Events without a durable: a
// consumer can be told to deliver to any subject of the account, so who may create one may write anywhere.
package bus
