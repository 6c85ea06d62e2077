package memory

import "github.com/streamhouse/streamhouse/ports"

// Cluster is a metadata store and a segment store in memory. It ends with the
// process.
type Cluster struct {
	metadata *Metadata
	segments *Segments
}

var _ ports.Cluster = (*Cluster)(nil)

// NewCluster makes an empty cluster whose ids are random.
func NewCluster() *Cluster {
	return &Cluster{metadata: NewMetadata(MetadataOptions{}), segments: NewSegments()}
}

// Metadata implements ports.Cluster. The store is a *Metadata.
func (c *Cluster) Metadata() ports.MetadataStore { return c.metadata }

// Segments implements ports.Cluster. The store is a *Segments.
func (c *Cluster) Segments() ports.SegmentStore { return c.segments }

// Close closes the metadata store. What was written is lost with the last
// reference to c.
func (c *Cluster) Close() error { return c.metadata.Close() }
