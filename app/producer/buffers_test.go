package producer

import "testing"

func TestBuffers_ClassesHoldWhatIsAskedAndWasteAFifthAtMost(t *testing.T) {
	for n := 1; n <= 1<<maxBufferBits; n += 1 + n/1000 {
		class := bufferClass(n)
		size := bufferSize(class)
		if class >= bufferClasses || size < n {
			t.Fatalf("%d bytes get class %d of %d bytes", n, class, size)
		}
		if n > 1<<minBufferBits && size > n+n/4+1 {
			t.Fatalf("%d bytes get %d", n, size)
		}
		if bufferClass(size) != class {
			t.Fatalf("a buffer of class %d goes back to class %d", class, bufferClass(size))
		}
	}
}

func TestBuffers_StayBelowTheirLimit(t *testing.T) {
	p := &buffers{limit: 1 << 20}
	var held [][]byte
	for i := range 200 {
		held = append(held, p.take(5000*(1+i%20)))
		if len(held) > 5 {
			p.put(held[0])
			held = held[1:]
		}
		kept, used := 0, 0
		for _, list := range p.free {
			for _, b := range list {
				kept += cap(b)
			}
		}
		for _, b := range held {
			used += cap(b)
		}
		if int64(kept+used) != p.total || p.total > p.limit {
			t.Fatalf("%d bytes kept and %d used, %d counted, limit %d", kept, used, p.total, p.limit)
		}
	}
}
