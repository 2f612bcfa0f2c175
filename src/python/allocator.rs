//! mimalloc as the process's allocator.
//!
//! The `mimalloc` crate asks for every block with an alignment. mimalloc then has a short way only
//! while the first page of that size has a free block at hand; where it has none, sizes that are no
//! power of two are taken from a larger class, and the page is not looked through for what was
//! freed in it, so the next block goes the long way again. What a plain block is aligned to is all
//! that nearly every type needs.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// What every block of mimalloc is aligned to, if it is as large as that.
const NATURAL: usize = 16;

/// The allocator; it has no state here.
#[derive(Debug)]
pub struct MiMalloc;

/// Whether a block of mimalloc has the alignment of `layout` without being asked for it.
#[inline]
fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL && layout.align() <= layout.size()
}

// SAFETY: mimalloc gives blocks of at least the size that was asked for, which nothing else has until
// they are freed, or null. Those of plain calls are aligned to their size up to `NATURAL` (its
// `MI_MAX_ALIGN_SIZE`), and `is_natural` says whether that is enough. It does not unwind.
unsafe impl GlobalAlloc for MiMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two may be asked for.
        unsafe {
            if is_natural(layout) {
                mi::mi_malloc(layout.size()).cast()
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe {
            if is_natural(layout) {
                mi::mi_zalloc(layout.size()).cast()
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives back what it got here; mimalloc knows how large it is.
        unsafe { mi::mi_free(block.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc` and `alloc`; what fits into the block may stay where it is, which
        // is aligned as `layout` says.
        unsafe {
            if layout.align() <= NATURAL && layout.align() <= new_size {
                mi::mi_realloc(block.cast(), new_size).cast()
            } else {
                mi::mi_realloc_aligned(block.cast(), new_size, layout.align()).cast()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_aligned_and_keeps_what_was_written() {
        for align in [1, 2, 4, 8, 16, 32, 4096] {
            for size in (1..300).chain([1 << 10, 1 << 16, 1 << 22]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: no size is zero, each block is used within its size, and freed once.
                unsafe {
                    let zeroed = MiMalloc.alloc_zeroed(layout);
                    let block = MiMalloc.alloc(layout);
                    assert_eq!((zeroed.addr() % align, block.addr() % align), (0, 0), "{layout:?}");
                    assert_eq!((zeroed.read(), zeroed.add(size - 1).read()), (0, 0), "{layout:?}");
                    block.write_bytes(7, size);
                    let grown = MiMalloc.realloc(block, layout, size * 3);
                    assert_eq!(grown.addr() % align, 0, "{layout:?}");
                    assert_eq!((grown.read(), grown.add(size - 1).read()), (7, 7), "{layout:?}");
                    MiMalloc.dealloc(zeroed, layout);
                    MiMalloc.dealloc(grown, Layout::from_size_align(size * 3, align).unwrap());
                }
            }
        }
    }
}
