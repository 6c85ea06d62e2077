package ports

// Cluster is a metadata store and the segment store that belongs to it, opened
// together.
type Cluster interface {
	Metadata() MetadataStore
	Segments() SegmentStore
}
