// Package streamhouse is event streaming that lives on object storage, as a
// library: records go to topics, are durable when acknowledged, and come back in order.
//
// A [Producer] sends, a [Consumer] reads, and [Topics] are created and looked after,
// all on a metadata store (topics and offsets) and a segment store (the records). The
// package adapters/local opens both in one folder; adapters/memory keeps both in memory
// for tests.
//
//	store, err := local.Open(ctx, "data")
//	p, err := streamhouse.NewProducerBuilder().Cluster(store).Build(ctx)
//	res, err := p.Send(ctx, streamhouse.Record{Topic: "orders", Key: []byte("user123"), Value: []byte("order data")})
//
// # Errors
//
// Every error answers two questions: was the record stored, and does a retry help? [FateOf]
// gives both. Match errors with errors.Is against the Err variables and with errors.As against
// the Error types, never by their text.
//
// # What an acknowledgement means
//
// A record whose Send returned nil, or whose callback got a nil error, is in the segment store
// and its offset is committed in the metadata store, both flushed to durable storage. There
// is no weaker mode unless a store was opened with an option that is named unsafe.
package streamhouse
