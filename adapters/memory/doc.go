// Package memory fills the ports in memory, for tests and tiny uses. What its
// stores hold ends with the process; within it they keep the same contracts as the durable
// ones, and pass the same suites.
package memory
