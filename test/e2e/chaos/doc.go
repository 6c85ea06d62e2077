// Package chaos drives many writers and readers of one log while its stores
// fail, records what they saw, and checks the history: nothing acknowledged is lost,
// nothing is there twice, every reader sees one order.
//
// It is used by tests against real servers behind fault proxies. What it does not know is
// how the stores are reached and how they fail: the test says so.
package chaos
