package guest

import (
	"slices"
	"strings"
	"testing"
)

func TestModinfoIsRead(t *testing.T) {
	m := parseModinfo([]byte("license=GPL\x00alias=fs-ext4\x00depends=jbd2,mbcache\x00softdep=pre: crypto-crc32c zlib post: x\x00alias=ext3\x00depends2=no\x00"))
	if !slices.Equal(m.depends, []string{"jbd2", "mbcache"}) || !slices.Equal(m.soft, []string{"crypto-crc32c", "zlib"}) || !slices.Equal(m.aliases, []string{"fs-ext4", "ext3"}) {
		t.Errorf("%+v", m)
	}
	if m := parseModinfo([]byte("depends=\x00")); len(m.depends) != 0 {
		t.Errorf("no dependency became %q", m.depends)
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	k := kernelModules{
		"ext4":           {file: "ext4.ko", depends: []string{"jbd2", "mbcache"}, soft: []string{"crypto-crc32c", "nobody"}},
		"jbd2":           {file: "jbd2.ko"},
		"mbcache":        {},
		"crc32c_generic": {file: "crc32c-generic.ko", aliases: []string{"crypto-crc32c"}, depends: []string{"jbd2"}},
		"virtio_blk":     {file: "virtio-blk.ko"},
	}
	got, err := k.loadOrder([]string{"virtio-blk", "ext4", "jbd2"})
	if want := []string{"virtio-blk.ko", "jbd2.ko", "crc32c-generic.ko", "ext4.ko"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	k["jbd2"] = module{file: "jbd2.ko", depends: []string{"gone"}}
	if _, err := k.loadOrder([]string{"ext4"}); err == nil || !strings.Contains(err.Error(), "no module gone") {
		t.Errorf("a missing dependency: %v", err)
	}
}
