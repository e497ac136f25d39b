//! One connection through a proxy: two directions, each a reader, a queue of pieces with the
//! times they are due, and a writer that keeps them back as its link says.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Controls, Direction};
use crate::faults::choices::Choices;

/// Bytes of a piece at most.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces under way at most: what a slow link keeps before its sender feels it.
const PIECES_MAX: usize = 64;

/// A piece and when it may arrive; no bytes are the end of the stream.
type Piece = (Instant, Bytes);

/// Carries bytes until both sides have ended, one fails, or the connection is to be reset.
pub(super) async fn connection(
    mut client: TcpStream,
    mut server: TcpStream,
    controls: Arc<Controls>,
    mut choices: Choices,
) {
    let _late_small_packets = client.set_nodelay(true).and(server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = direction(from_client, to_server, &controls, Direction::ToServer, choices.fork());
    let back = direction(from_server, to_client, &controls, Direction::ToClient, choices.fork());
    let ended_well = tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.is_ok(),
        () = controls.reset_now.notified() => false,
    };
    if !ended_well {
        let _gone = client.set_zero_linger().and(server.set_zero_linger());
    }
}

async fn direction(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    controls: &Controls,
    direction: Direction,
    choices: Choices,
) -> io::Result<()> {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::try_join!(
        read(from, sender, controls, direction, choices),
        write(to, pieces, controls, direction)
    )?;
    Ok(())
}

/// Reads pieces, and gives each its time.
async fn read(
    mut from: ReadHalf<'_>,
    pieces: mpsc::Sender<Piece>,
    controls: &Controls,
    direction: Direction,
    mut choices: Choices,
) -> io::Result<()> {
    let mut due = Instant::now();
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = from.read_buf(&mut piece).await?;
        if let Some(at) = controls.flip[direction as usize].pass(read) {
            piece[at] ^= 1 << choices.below(8);
        }
        let flow = controls.link.borrow().flow(direction);
        let jitter = u64::try_from(flow.jitter.as_micros()).unwrap_or(u64::MAX);
        let late = flow.delay + Duration::from_micros(choices.below(jitter.saturating_add(1)));
        // A piece never overtakes the one before it.
        due = due.max(Instant::now() + late);
        if pieces.send((due, piece.freeze())).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

/// Writes each piece when it is due and nothing holds it.
async fn write(
    mut to: WriteHalf<'_>,
    mut pieces: mpsc::Receiver<Piece>,
    controls: &Controls,
    direction: Direction,
) -> io::Result<()> {
    let mut link = controls.link.subscribe();
    while let Some((due, mut piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        // The sender lives as long as the connection does.
        let _always = link.wait_for(|link| !link.flow(direction).hold).await.is_ok();
        let flow = controls.link.borrow().flow(direction);
        if let Some(rate) = flow.bytes_per_second {
            let seconds = piece.len() as f64 / rate.max(1) as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        let cut = controls.reset[direction as usize].pass(piece.len());
        if let Some(at) = cut {
            piece.truncate(at);
        }
        to.write_all(&piece).await?;
        if cut.is_some() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if piece.is_empty() {
            return to.shutdown().await;
        }
    }
    Ok(())
}
