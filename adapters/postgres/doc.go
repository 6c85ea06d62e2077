// Package postgres is the metadata store in PostgreSQL 14 or later, for any
// number of processes on any number of machines.
//
// A commit is one call of the function commit_segments, so it takes one round trip; what
// it decides is what domain/commit.Decide decides, and a test compares the two. No decision is cached: every
// one is taken in the transaction that stores it, on the server's clock.
package postgres
