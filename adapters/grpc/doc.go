// Package grpc is the agent transport, both ends: a Server puts a network in
// front of a transport, a fetcher and a metadata store, and a Client fills the same ports
// through any agent of a group. Protobuf types never leave this folder.
//
// # How a batch travels
//
// Append puts the batch into the queue of a Transport. One goroutine takes from the
// queue what the agent's window has room for, copies it into one message, and sends that on the
// Produce stream of the agent that was chosen. The agent checks header, counts and
// checksum, finds room, hands the bytes to its own transport, and sends back an outcome for
// each batch as soon as that is settled. Nothing is decoded or encoded again on the way.
//
// # Order
//
// Batches of one producer and partition leave in the order of the Appends, on one stream at a
// time. When the stream breaks, what was sent is Ambiguous and what follows it of the
// same producer and partition is settled as not sent; all else goes on to the next agent. The
// producer then sends again, in order.
package grpc
