package rootfs

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A disk is an empty ext4 file system in a sparse file, of just the parts of the format that the kernel needs
// (see ext4 in its documents): no journal, as no sandbox outlives the host, and checksums for what says that a
// group of blocks is still as it was made, so that nothing but the first and the last of them is written.
const (
	blockSize      = 4096
	groupBlocks    = 8 * blockSize // of a group: what a block of bits can tell of
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 32
	reservedInodes = 10 // the first ones, among them the root directory's
	rootInode      = 2

	// bytesPerFile is how many bytes of a disk there is a file for, and minFiles how many there are in any case.
	bytesPerFile = 16 << 10
	minFiles     = 1024
	// ownBlocks and ownFiles are what a tree takes of its disk, see mountDisk and mountOverlay: upper, work, work/work,
	// work/incompat, volatile in that, and dirty in that, which is empty; and for ownBlocks the root directory, too.
	ownBlocks = 6
	ownFiles  = 6
)

// The least and the most that a sandbox's disk can have, in bytes.
const (
	MinDisk = 1 << 20
	MaxDisk = 1 << 40
)

// geometry is how the blocks of a disk are laid out.
type geometry struct {
	blocks    uint32 // in all
	groups    uint32
	descs     uint32 // blocks of descriptors of groups, which follow the first
	inodes    uint32 // of a group
	inodeBlks uint32 // in which a group's inodes are
}

// layout lays out a disk that has room for size bytes.
func layout(size int64) geometry {
	data := uint32((size + blockSize - 1) / blockSize)
	files := uint32(max(minFiles, (size+bytesPerFile-1)/bytesPerFile)) + reservedInodes + ownFiles
	g := geometry{groups: 1}
	for {
		perGroup := (files + g.groups - 1) / g.groups
		g.inodeBlks = (perGroup + inodesPerBlock - 1) / inodesPerBlock
		g.inodes = g.inodeBlks * inodesPerBlock
		g.descs = (g.groups*descSize + blockSize - 1) / blockSize
		g.blocks = 1 + g.descs + ownBlocks + data + g.groups*(2+g.inodeBlks)
		g.blocks += min(g.blocks/49+1, 4096) // what the kernel keeps back for itself, a 50th of all
		groups := (g.blocks + groupBlocks - 1) / groupBlocks
		if groups <= g.groups {
			break
		}
		g.groups = groups
	}
	// With the last group the others may have come to need fewer blocks; it has to have room for its own.
	g.blocks = max(g.blocks, (g.groups-1)*groupBlocks+2+g.inodeBlks)
	return g
}

// meta is the first block of what a group says of itself: the bits of its blocks, those of its inodes, and these.
func (g geometry) meta(group uint32) uint32 {
	if group == 0 {
		return 1 + g.descs
	}
	return group * groupBlocks
}

// size is how many blocks a group has, and used how many of them an empty disk uses, which are its first.
func (g geometry) size(group uint32) uint32 { return min(groupBlocks, g.blocks-group*groupBlocks) }

func (g geometry) used(group uint32) uint32 {
	used := g.meta(group) + 2 + g.inodeBlks - group*groupBlocks
	if group == 0 {
		used++ // the root directory
	}
	return used
}

// free is how many blocks an empty disk has free.
func (g geometry) free() (n uint32) {
	for group := range g.groups {
		n += g.size(group) - g.used(group)
	}
	return n
}

// makeDisk makes a disk that has room for size bytes, at a path where there is nothing.
func makeDisk(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g := layout(size)
	if err := f.Truncate(int64(g.blocks) * blockSize); err != nil {
		return err
	}
	var id [32]byte // one of its own, and the seed of its hashes
	_, _ = rand.Read(id[:])
	for block, content := range g.content(id) {
		if _, err := f.WriteAt(content, int64(block)*blockSize); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	return nil
}

// content is what an empty disk has in its blocks. The others, and the ends of these, are zero.
func (g geometry) content(id [32]byte) map[uint32][]byte {
	last := g.groups - 1
	return map[uint32][]byte{
		0:             g.super(id),
		1:             g.descriptors(id),
		g.meta(last):  bits(g.used(last), g.size(last)),
		g.meta(0):     bits(g.used(0), g.size(0)),
		g.meta(0) + 1: bits(reservedInodes, g.inodes),
		g.meta(0) + 2: g.rootInode(),
		g.used(0) - 1: rootDir(),
	}
}

// bits are those of a group: set for the first, which are used, and for those that there aren't.
func bits(used, have uint32) []byte {
	b := make([]byte, blockSize)
	for i := range uint32(groupBlocks) {
		if i < used || i >= have {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// super is the block that describes the file system. Numbers are little-endian, here and in all that follows.
func (g geometry) super(id [32]byte) []byte {
	const start = 1024
	b := make([]byte, start+1024)
	for at, v := range map[int]uint32{
		0x00:  g.groups * g.inodes,
		0x04:  g.blocks,
		0x0C:  g.free(),
		0x10:  g.groups*g.inodes - reservedInodes,
		0x18:  2, // blocks of 1024 << 2 bytes
		0x1C:  2,
		0x20:  groupBlocks,
		0x24:  groupBlocks,
		0x28:  g.inodes,
		0x4C:  1,                              // the format's revision
		0x54:  reservedInodes + 1,             // the first inode for others
		0x5C:  0x8 | 0x20 | 0x200,             // compatible: ext_attr, dir_index, sparse_super2
		0x60:  0x2 | 0x40,                     // incompatible: filetype, extents
		0x64:  0x2 | 0x8 | 0x10 | 0x20 | 0x40, // for writing: large_file, huge_file, gdt_csum, dir_nlink, extra_isize
		0x160: 0x2,                            // the hash takes characters as unsigned
	} {
		binary.LittleEndian.PutUint32(b[start+at:], v)
	}
	for at, v := range map[int]uint16{
		0x36:  0xFFFF, // no check is due after a number of mounts
		0x38:  0xEF53,
		0x3A:  1, // clean
		0x3C:  1, // go on after an error: what is damaged is the sandbox's
		0x58:  inodeSize,
		0x15C: 32, // of an inode, beyond the 128 bytes of old
		0x15E: 32,
	} {
		binary.LittleEndian.PutUint16(b[start+at:], v)
	}
	copy(b[start+0x68:], id[:16])
	copy(b[start+0xEC:], id[16:])
	b[start+0xFC] = 1 // half MD4
	return b
}

// descriptors describe the groups.
func (g geometry) descriptors(id [32]byte) []byte {
	const noInodes, noBlocks, zeroed = 1, 2, 4
	b := make([]byte, g.groups*descSize)
	for group := range g.groups {
		d := b[group*descSize:][:descSize]
		inodes, dirs, flags := g.inodes, uint16(0), uint16(noInodes|noBlocks|zeroed)
		if group == g.groups-1 { // its bits tell where it ends
			flags &^= noBlocks
		}
		if group == 0 {
			inodes, dirs, flags = inodes-reservedInodes, 1, zeroed
		}
		for i := range uint32(3) {
			binary.LittleEndian.PutUint32(d[4*i:], g.meta(group)+i)
		}
		binary.LittleEndian.PutUint16(d[0x0C:], uint16(g.size(group)-g.used(group)))
		binary.LittleEndian.PutUint16(d[0x0E:], uint16(inodes))
		binary.LittleEndian.PutUint16(d[0x10:], dirs)
		binary.LittleEndian.PutUint16(d[0x12:], flags)
		binary.LittleEndian.PutUint16(d[0x1C:], uint16(inodes)) // never used
		sum := crc16(crc16(0xFFFF, id[:16]), binary.LittleEndian.AppendUint32(nil, group))
		binary.LittleEndian.PutUint16(d[0x1E:], crc16(sum, d[:0x1E]))
	}
	return b
}

// crc16 is the checksum of descriptors, over x^16 + x^15 + x^2 + 1.
func crc16(sum uint16, data []byte) uint16 {
	for _, c := range data {
		sum ^= uint16(c)
		for range 8 {
			carry := sum & 1
			sum >>= 1
			if carry != 0 {
				sum ^= 0xA001
			}
		}
	}
	return sum
}

// rootInode is the first block of inodes, with the root directory's.
func (g geometry) rootInode() []byte {
	b := make([]byte, blockSize)
	d := b[(rootInode-1)*inodeSize:]
	binary.LittleEndian.PutUint16(d[0x00:], 0o40755)
	binary.LittleEndian.PutUint32(d[0x04:], blockSize)
	binary.LittleEndian.PutUint16(d[0x1A:], 2)             // links
	binary.LittleEndian.PutUint32(d[0x1C:], blockSize/512) // what it takes
	binary.LittleEndian.PutUint32(d[0x20:], 0x80000)       // it has extents:
	binary.LittleEndian.PutUint16(d[0x28:], 0xF30A)
	binary.LittleEndian.PutUint16(d[0x2A:], 1)           // one
	binary.LittleEndian.PutUint16(d[0x2C:], 4)           // of at most four
	binary.LittleEndian.PutUint16(d[0x38:], 1)           // of one block
	binary.LittleEndian.PutUint32(d[0x3C:], g.used(0)-1) // which is this
	binary.LittleEndian.PutUint16(d[0x80:], 32)
	return b
}

// rootDir is the root directory: "." and "..", which is itself.
func rootDir() []byte {
	b := make([]byte, blockSize)
	at := 0
	for i, name := range []string{".", ".."} {
		size := 12
		if i == 1 {
			size = blockSize - at
		}
		binary.LittleEndian.PutUint32(b[at:], rootInode)
		binary.LittleEndian.PutUint16(b[at+4:], uint16(size))
		b[at+6], b[at+7] = byte(len(name)), 2 // a directory
		copy(b[at+8:], name)
		at += size
	}
	return b
}
