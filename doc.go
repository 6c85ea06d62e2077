// Package streamhouse is event streaming that lives on object storage.
package streamhouse
