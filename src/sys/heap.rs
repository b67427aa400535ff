//! A heap that counts, for tests: what this thread holds of it, with what the allocator itself
//! takes.

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

/// What a block takes, which is of the C library's allocator, or null.
fn size_of_block(block: *mut u8) -> isize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: `Counting` asks about blocks of the system's allocator only.
    let usable = unsafe { libc::malloc_usable_size(block.cast()) };
    usable as isize + HEADER_BYTES
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: asked for as of the system's allocator.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is the caller's.
        let block = unsafe { System.alloc(layout) };
        count(size_of_block(block));
        block
    }

    // SAFETY: asked for as of the system's allocator.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-size_of_block(block));
        // SAFETY: block and layout are the caller's.
        unsafe { System.dealloc(block, layout) };
    }
}
