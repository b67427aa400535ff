//! A heap that counts, for tests: what this thread holds of it, with the allocator's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What the C library keeps beside each allocation.
const HEADER_BYTES: isize = 8;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated and not freed. What another thread frees stays counted.
pub fn held_bytes() -> isize {
    HELD.with(Cell::get)
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends has no counter any more, and nobody asks it.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

/// The block is the C library's, or null.
// SAFETY: callers have just got it from there or are about to give it back.
unsafe fn size_of_block(block: *mut u8) -> isize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: as the caller says.
    let usable = unsafe { libc::malloc_usable_size(block.cast()) };
    usable as isize + HEADER_BYTES
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait wants it of its callers.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is the caller's.
        let block = unsafe { System.alloc(layout) };
        // SAFETY: the system's allocator is the C library's.
        count(unsafe { size_of_block(block) });
        block
    }

    // SAFETY: as the trait wants it of its callers.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc`.
        count(-unsafe { size_of_block(block) });
        // SAFETY: block and layout are the caller's.
        unsafe { System.dealloc(block, layout) };
    }
}
