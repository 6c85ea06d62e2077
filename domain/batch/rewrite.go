package batch

import (
	"encoding/binary"
	"hash/crc32"
)

// SetProducer makes b, one whole encoded batch, the batch of another producer
// session, and its checksum right again. The records stay as they are.
func SetProducer(b []byte, p Producer) {
	be := binary.BigEndian
	be.PutUint64(b[atProducerID:], uint64(p.ID))
	be.PutUint16(b[atProducerEpoch:], uint16(p.Epoch))
	be.PutUint32(b[atSequence:], uint32(p.Sequence))
	be.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
}
