//! Clients that do not read: what waits for them, as an operator is shown it.

use super::Clients;
use crate::api::Info;
use crate::ipc::messages::{RequestId, WorkerToManager};

/// Bytes of a path that is shown in a list.
const PATH_BYTES_MAX: usize = 128;
/// Clients in one answer, which is one packet.
const SLOW_MAX: usize = 100;

impl Clients {
    /// Answers which clients have the most bytes that wait since the kernel takes no more.
    pub(in crate::worker) fn list_slow(&self, id: RequestId, limit: usize) {
        let table = self.table.borrow();
        let blocked = table.iter().filter(|(_, it)| it.is_open() && it.blocked);
        let bytes =
            |it: &super::connection::Connection| it.outbox.as_ref().map_or(0, |o| o.bytes());
        let mut slow: Vec<_> = blocked.map(|(key, it)| (bytes(it), key)).collect();
        slow.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        slow.truncate(limit.min(SLOW_MAX));
        let now_ms = self.now_ms.get();
        let infos = slow.iter().filter_map(|(_, key)| {
            let connection = table.get(*key)?;
            let mut info = connection.info(self.slot(), now_ms)?;
            // Rooms and session are too much for one packet: `info` tells them.
            info.uid = self.belongings_of(connection).uid;
            Some(info)
        });
        let part = infos.map(shortened).collect();
        drop(table);
        self.say(&WorkerToManager::SlowAnswer { id, part });
    }
}

fn shortened(mut info: Info) -> Info {
    info.path.truncate(info.path.floor_char_boundary(PATH_BYTES_MAX));
    info
}
