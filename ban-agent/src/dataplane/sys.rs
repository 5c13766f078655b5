//! `bpf(2)` itself.

use std::io;

/// Calls `bpf(2)`.
///
/// # Safety
/// `attr` must be the attribute structure of `command`, and each address in it must point to
/// memory that is large enough for what the command reads or writes there.
pub(super) unsafe fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: passed on to the caller; the pointer and the size describe `attr` itself.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
