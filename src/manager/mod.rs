use nix::poll::*;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
fn lifeloop<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    link: OwnedFd,
    hello: Vec<Vec<u8>>,
    mut f: impl FnMut(T) -> (Option<Vec<u8>>, bool),
) -> ExitCode {
    for h in hello {
        crate::sys::packet::send(link.as_fd(), &h, &[]).ok();
    }
    loop {
        let mut p = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut p, PollTimeout::NONE);
        let mut b = vec![0; 300000];
        let got = crate::sys::packet::receive(link.as_fd(), &mut b).unwrap();
        if got.len == 0 {
            return ExitCode::FAILURE;
        }
        let (ans, end) = f(crate::ipc::codec::decode(&b[..got.len]).unwrap());
        if let Some(a) = ans {
            crate::sys::packet::send(link.as_fd(), &a, &[]).ok();
        }
        if end {
            return ExitCode::SUCCESS;
        }
    }
}
fn enc<T: serde::Serialize>(t: &T) -> Vec<u8> {
    let mut v = vec![];
    crate::ipc::codec::encode(t, &mut v).unwrap();
    v
}
use crate::ipc::messages::*;
pub fn run(link: OwnedFd) -> ExitCode {
    crate::sys::process::ignore_master_signals().unwrap();
    lifeloop::<MasterToManager>(
        link,
        vec![enc(&ManagerToMaster::Hello(Hello::ours())), enc(&ManagerToMaster::Ready)],
        |m| match m {
            MasterToManager::Beat(n) => (Some(enc(&ManagerToMaster::Beat(n))), false),
            MasterToManager::Leave => (None, true),
            _ => (None, false),
        },
    )
}
