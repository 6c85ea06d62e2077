// Package bench measures how fast and how costly producing and consuming are,
// beside what the machine can do at most, measured in the same run.
//
// Units: MB is 10^6 bytes of record values, before compression. CPU is user and
// system time of the whole process, generator included.
package bench
