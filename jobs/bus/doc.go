// Package bus holds the part of gofer on NATS JetStream that clients and workers share: the connection, the streams and their
// settings, the guarded result, and the requests that packages client and stream send. A Go program that submits jobs imports
// package client.
//
// The promise that every accepted job ends in exactly one result rests on the server, not on acks: the server accepts
// an ack from any user, so an ack proves nothing. A result is stored under a guard (no message may be on its subject
// yet), so the first one wins for as long as it is kept, and only what was stored is republished to subscribers. A
// scheduled job is stored under the same guard.
//
// Nothing that a client does here needs the right to create a consumer, except to follow a stream without a durable: a
// consumer can deliver to any subject of the account, so a user who may create one may write anywhere.
package bus
