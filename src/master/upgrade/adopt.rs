//! The server is taken over from the image before this one.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::ipc::scoreboard::{Board, MANAGER, Summary, Totals};
use crate::master::log_file::LogFile;
use crate::master::reload::Image;
use crate::master::report::Report;
use crate::master::runtime_dir::RuntimeDir;
use crate::master::{Launch, Master, Signals};
use crate::sys::{clock, ending, guard, process};

/// Takes the server over from the image before this one. Everything is taken as a duplicate: if
/// this fails, the originals are there for the image that is gone back to.
pub fn adopt(mut launch: Launch, record: OwnedFd) -> Result<Master> {
    let Some(left) = launch.takeover.take() else {
        return Err(Error::new("there is nothing to take over"));
    };
    ending::adopt_strays()?;
    let take = process::duplicate_number;
    let why = File::from(take(left.why)?);
    let control = take(left.control)?;
    let mut slots = crate::master::slots::Slots::new(&launch.config);
    for place in left.slots {
        let at = slots.at(crate::fd::Slot(place.slot));
        at.epoch = place.epoch;
        at.owed = place.closing_lost.into_iter().map(take).collect::<Result<_>>()?;
        at.start_at_ms = None;
        at.idle_since_ms = None;
    }
    let mut listeners = crate::master::Listeners::default();
    for (slot, listener, socket) in left.listeners {
        listeners.adopt(slot, listener, take(socket)?);
    }
    let runtime_dir = RuntimeDir::adopt(left.runtime_dir, &launch.config)?;
    let workers = left.workers.into_iter().map(crate::master::WorkerHandle::adopt);
    let workers = workers.collect::<Result<Vec<_>>>()?;
    let manager = crate::master::ManagerPlace::adopt(left.manager)?;
    let board = adopt_board(left.departed, &workers, &manager)?;
    let summary = match left.summary.map(take).transpose()? {
        Some(before) => Summary::continuing(before.as_fd())?,
        None => Summary::create()?,
    };
    let mut master = Master {
        arguments: process::arguments(),
        started_at: left.started_at,
        log_file: LogFile::open(&launch.config)?,
        log_stuck: false,
        file_checks: Default::default(),
        report: Report::told(),
        signals: Signals::install()?,
        serials: crate::master::Serials::adopt(runtime_dir.dir().try_clone()?, left.serials),
        runtime_dir,
        listeners,
        control,
        board,
        summary,
        counts_at_ms: 0,
        image: Image::adopt(left.generation, take(left.image)?),
        reload: crate::master::Reload::adopt(left.last_generation),
        rehearsal: None,
        slots,
        workers,
        apps: left.apps,
        buffer: vec![0; crate::master::child::MESSAGE_BYTES_MAX],
        worker_restarts: left.worker_restarts,
        manager,
        stopping: None,
        drain: left.drain,
        starting_until_ms: None,
        state_told: Default::default(),
        config: launch.config.clone(),
        _record: record,
        launch,
    };
    master.fill_places();
    master.show_summary_to_all();
    left.all.into_iter().for_each(process::close_number);
    master.came_back(why);
    Ok(master)
}

/// The counters of every process that lives, and of those that do not.
fn adopt_board(
    departed: Totals,
    workers: &[crate::master::WorkerHandle],
    manager: &crate::master::ManagerPlace,
) -> Result<Board> {
    let mut board = Board::new(departed);
    for worker in workers {
        board.opened(worker.id, worker.page.as_fd())?;
    }
    if let Some(page) = manager.page() {
        board.opened(MANAGER, page)?;
    }
    Ok(board)
}

impl Master {
    /// What could have happened to a slot while nobody looked: nothing, or it is empty now.
    fn fill_places(&mut self) {
        let now = clock::monotonic_ms();
        for slot in self.slots.serving() {
            let alive = self.workers.iter().any(|worker| worker.id.slot == slot);
            let place = self.slots.at(slot);
            if !alive && place.start_at_ms.is_none() {
                place.start_at_ms = Some(now);
                place.idle_since_ms = Some(now);
            }
        }
        let removed = self.slots.iter().map(|(slot, _)| slot);
        let removed: Vec<_> = removed.filter(|slot| !self.slots.serves(*slot)).collect();
        for slot in removed {
            self.slots.at(slot).idle_since_ms = Some(0);
        }
    }

    /// A new image starts a new manager; an old one that was come back to tells its own why.
    fn came_back(&mut self, mut why: File) {
        if guard::is_armed() {
            self.manager.upgraded();
            return;
        }
        let mut text = String::new();
        let rewound = std::io::Seek::rewind(&mut why);
        // No reason given is a reason too.
        let _ = rewound.and_then(|()| why.read_to_string(&mut text));
        if text.is_empty() {
            text = format!(
                "{} died, or did not adopt the server within {} s, after it was executed",
                self.launch.invoked.display(),
                guard::ADOPT_SECONDS
            );
        }
        self.upgrade_failed(&text);
    }
}
