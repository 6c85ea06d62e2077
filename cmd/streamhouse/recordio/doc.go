// Package recordio turns bytes into records and records into bytes for the
// command line: lines, keys and values split by a separator, and JSON lines.
//
// What the writers write, the parsers read back as the same record: nil and
// empty keys and values stay distinct in JSON, bytes that are not UTF-8 travel as
// base64, and headers keep their order and their duplicates.
package recordio
