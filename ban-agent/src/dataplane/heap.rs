//! The C library's heap: what a long-running agent has let go of belongs to the machine.

/// Keeps the heap to two arenas; call it before there are threads. By itself there is one for each
/// of them, which costs memory, and the agent's threads mostly wait.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers, and changes a setting of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives freed memory back; some ms if there is much.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
