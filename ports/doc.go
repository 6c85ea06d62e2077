// Package ports holds the interfaces between StreamHouse's use cases and the
// technology that serves them, each with its contract in its comments.
//
// A contract has one conformance suite in ports/portstest, which every adapter
// runs. Adapters turn their library's errors into the errors of this package
// and of domain at their edge: no driver type crosses a port.
//
// Unless a method says otherwise: it may be called from several goroutines, it
// obeys the end of its context, and it does not keep slices that it was given
// after it returned.
package ports
