// Package sqlite is the metadata store in one SQLite file, for the embedded log.
//
// Several processes may use one file at the same time; each holds one writing
// connection and a few reading ones. Of rows only the writing connection keeps some beyond its
// transaction, as long as nobody else writes (see memo). The journal is a write-ahead log that is synced by every commit (synchronous=FULL), so what
// was acknowledged survives the loss of power if the disk honours flushes.
//
// # The process
//
// SQLite is switched to fdatasync, for the whole process: a commit need not wait
// until timestamps are on disk. And no other code of the process may open the database file
// past SQLite: closing it again would drop the locks that POSIX gives per process.
package sqlite
