// Package faultproxy has proxies that stand between a client and a real server
// and fail as a test tells them: [HTTP] in front of S3, [Postgres] in front of PostgreSQL, [TCP] in
// front of anything else.
//
// A proxy keeps its address for its whole life, also while it refuses
// connections. It counts what it does, so that a test can tell that the fault it relies on has
// happened. Close, which the end of the test calls too, cuts every connection and waits for every
// goroutine.
package faultproxy
