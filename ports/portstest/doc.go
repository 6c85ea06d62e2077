// Package portstest holds one conformance suite a port, run by every adapter
// that fills the port. A suite assumes nothing about the implementation: what it
// demands is written in the port's contract.
package portstest
