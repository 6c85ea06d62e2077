package cache

import "container/list"

// entryOverhead is what an entry takes besides its bytes: pointers, its key, and
// its place in maps. Without it a pool of tiny objects would be much larger than its bound.
const entryOverhead = 256

// pool is a number of bytes in memory, the first of the list the next to go. It
// is not safe for concurrent use. The bytes that it holds are never written.
type pool struct {
	most, held int64
	order      list.List
	objects    map[string]map[int64]*list.Element // by key and number of the block
}

type entry struct {
	key   string
	n     int64
	bytes []byte
}

func newPool(most int64) *pool {
	return &pool{most: most, objects: make(map[string]map[int64]*list.Element)}
}

func (e *entry) cost() int64 { return int64(len(e.bytes)) + entryOverhead }

// get returns what is held of a block.
func (p *pool) get(key string, n int64) ([]byte, bool) {
	e, ok := p.objects[key][n]
	if !ok {
		return nil, false
	}
	return e.Value.(*entry).bytes, true
}

// use puts a block that is held behind all others.
func (p *pool) use(key string, n int64) {
	if e, ok := p.objects[key][n]; ok {
		p.order.MoveToBack(e)
	}
}

// put takes over b, which nobody writes any more, and lets go of what is first
// until all has room.
func (p *pool) put(key string, n int64, b []byte) {
	p.drop(key, n)
	e := &entry{key, n, b}
	if e.cost() > p.most {
		return
	}
	blocks := p.objects[key]
	if blocks == nil {
		blocks = make(map[int64]*list.Element)
		p.objects[key] = blocks
	}
	blocks[n] = p.order.PushBack(e)
	for p.held += e.cost(); p.held > p.most; {
		first := p.order.Front().Value.(*entry)
		p.drop(first.key, first.n)
	}
}

func (p *pool) drop(key string, n int64) {
	blocks := p.objects[key]
	e, ok := blocks[n]
	if !ok {
		return
	}
	p.held -= p.order.Remove(e).(*entry).cost()
	if delete(blocks, n); len(blocks) == 0 {
		delete(p.objects, key)
	}
}

// forget drops all that is held of an object.
func (p *pool) forget(key string) {
	for n := range p.objects[key] {
		p.drop(key, n)
	}
}
