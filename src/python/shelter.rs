//! Where values wait that died away from their thread.
//!
//! The collector runs on whichever thread has made the most garbage, so what belongs to a lane often
//! dies on another: a request in a reference cycle, with its body. Only its own thread may drop it. A
//! [`Shelter`] is a thread's offer to do so: [`send_home`] leaves the value there and wakes the thread.
//!
//! # Who owns what
//!
//! A shelter belongs to the thread that made it, which alone empties it. Others reach it through the
//! list of all shelters and put things down, under its lock. What arrives after the thread gave it
//! up is leaked, as is what belongs to a thread without one. No Python code runs under either lock.
//!
//! A forked child has no use for what its parent's threads had: it does not touch their locks, which
//! one of them may have held.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lane_bound::this_thread;

/// Of all threads.
static SHELTERS: Mutex<Vec<Arc<Room>>> = Mutex::new(Vec::new());

/// The process that made those.
static PROCESS: AtomicU32 = AtomicU32::new(0);

struct Room {
    owner: usize,
    process: u32,
    /// There may be something in it.
    is_used: AtomicBool,
    strays: Mutex<Vec<Box<dyn Send>>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What died elsewhere waits here for this thread.
pub struct Shelter {
    room: Arc<Room>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelter {
    /// For what belongs to the calling thread; `wake` has it call [`Self::empty`], from any thread.
    pub fn open(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let process = std::process::id();
        let room = Arc::new(Room {
            owner: this_thread(),
            process,
            is_used: AtomicBool::new(false),
            strays: Mutex::default(),
            wake: Box::new(wake),
        });
        let mut shelters = lock(&SHELTERS);
        shelters.retain(|room| room.process == process);
        shelters.push(room.clone());
        PROCESS.store(process, Ordering::Relaxed);
        Self { room }
    }

    /// Drops what has arrived. On another thread than its own it all stays.
    pub fn empty(&self) {
        // What is put down while this looks is found the next time: a wake-up follows it.
        if self.room.is_used.load(Ordering::Relaxed) && self.room.owner == this_thread() {
            self.room.is_used.store(false, Ordering::Relaxed);
            let strays = std::mem::take(&mut *lock(&self.room.strays));
            drop(strays);
        }
    }
}

impl Drop for Shelter {
    fn drop(&mut self) {
        if self.room.process == std::process::id() {
            lock(&SHELTERS).retain(|room| !Arc::ptr_eq(room, &self.room));
            self.empty();
        }
    }
}

/// Leaves what `pack` gives to the thread `owner`, if that has a shelter.
pub(super) fn send_home(owner: usize, pack: impl FnOnce() -> Box<dyn Send>) {
    if PROCESS.load(Ordering::Relaxed) != std::process::id() {
        return;
    }
    let room = lock(&SHELTERS).iter().rfind(|room| room.owner == owner).cloned();
    if let Some(room) = room {
        let stray = pack();
        lock(&room.strays).push(stray);
        if !room.is_used.swap(true, Ordering::Relaxed) {
            (room.wake)();
        }
    }
}
