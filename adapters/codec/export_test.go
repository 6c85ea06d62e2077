package codec

// HeaderChecksum and XXH32 are for the tests of frames made by hand.
var (
	HeaderChecksum = headerChecksum
	XXH32          = xxh32
)
