//! What becomes of a thread that is at work in Python when the interpreter ends.
//!
//! Such a thread never gets the GIL again. Since 3.14 CPython lets it wait for the end of the
//! process; before, it calls `pthread_exit`, which glibc carries out by unwinding the stack. That
//! would run the destructors of Rust's frames in an interpreter that is being taken apart, and the
//! first `catch_unwind` on the way, PyO3's or ours, aborts the process. [`HangsAtEnd`] has the
//! thread wait there, too.
//!
//! A guard belongs to one thread; only `pthread_exit` on that thread looks at what it registered.

pub use imp::HangsAtEnd;

#[cfg(all(target_os = "linux", target_env = "gnu", not(Py_3_14)))]
mod imp {
    use std::ffi::{c_int, c_void};
    use std::marker::PhantomData;
    use std::ptr;
    use std::thread::sleep;
    use std::time::Duration;

    /// `struct _pthread_cleanup_buffer` of the Linux Standard Base.
    #[repr(C)]
    struct Registration {
        routine: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        cancel_type: c_int,
        previous: *mut Registration,
    }

    unsafe extern "C" {
        fn _pthread_cleanup_push(
            registration: *mut Registration,
            routine: extern "C" fn(*mut c_void),
            argument: *mut c_void,
        );
        fn _pthread_cleanup_pop(registration: *mut Registration, execute: c_int);
    }

    extern "C" fn hang(_: *mut c_void) {
        loop {
            sleep(Duration::from_secs(3600));
        }
    }

    /// While there is one, a `pthread_exit` on its thread waits for the end of the process.
    #[must_use]
    pub struct HangsAtEnd {
        /// On the heap: glibc runs the routine once the frame that has the registration is unwound,
        /// and takes what is not in this thread's stack for part of a frame below all others.
        registration: *mut Registration,
        /// Registrations are a stack of this thread.
        on_this_thread: PhantomData<*const ()>,
    }

    impl HangsAtEnd {
        /// From here on, until the guard is dropped.
        pub fn enter() -> Self {
            let registration = Box::into_raw(Box::new(Registration {
                routine: hang,
                argument: ptr::null_mut(),
                cancel_type: 0,
                previous: ptr::null_mut(),
            }));
            // SAFETY: the structure has the layout that the function fills in, and stays where it is
            // until `drop` takes it out of the thread's list.
            unsafe { _pthread_cleanup_push(registration, hang, ptr::null_mut()) }
            Self { registration, on_this_thread: PhantomData }
        }
    }

    impl Drop for HangsAtEnd {
        fn drop(&mut self) {
            // SAFETY: pushed by `enter` on this thread, as a guard cannot change it, and not popped
            // before. Guards nest as the scopes that hold them do, so it is the newest one.
            // Afterwards nothing refers to the box any more.
            unsafe {
                _pthread_cleanup_pop(self.registration, 0);
                drop(Box::from_raw(self.registration));
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(Py_3_14))))]
mod imp {
    /// Nothing to do: the interpreter does it, or `pthread_exit` does not unwind.
    #[must_use]
    pub struct HangsAtEnd;

    impl HangsAtEnd {
        /// From here on, until the guard is dropped.
        pub fn enter() -> Self {
            Self
        }
    }
}
