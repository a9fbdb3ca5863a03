//! One connection: its control stream, both ways, and its content streams.

use super::contents;
use super::shared::Shared;
use super::writer::Input;
use super::writer::Out;
use crate::merge::sequencer::SessionId;
use crate::model::Hash;
use crate::net::Admission;
use crate::net::CloseCode;
use crate::net::Connection;
use crate::net::RecvError;
use crate::net::RecvStream;
use crate::net::SendStream;
use crate::wire::Hello;
use crate::wire::ToClient;
use crate::wire::ToHub;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

/// How long a client may take for its hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Batches of one session that are not answered yet; the next one waits on the wire.
const BATCHES: usize = 4;

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, admission: Admission) {
    let Admission { connection, device } = admission;
    let session = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let (number, read_only) = (device.number, device.read_only);
    let talk = async {
        let control = connection.accept_control().await.ok()?;
        let (mut recv, send) = (control.recv, control.send);
        let hello = tokio::time::timeout(HELLO_DEADLINE, recv.recv::<Hello>()).await;
        let Ok(Ok(Some(hello))) = hello else {
            connection.close(CloseCode::Protocol);
            return None;
        };
        let (out, outs) = mpsc::unbounded_channel();
        if shared.inputs.send(Input::Joined { session, device, hello, out }).await.is_err() {
            connection.close(CloseCode::Restarting);
            return None;
        }
        let batches = Semaphore::new(BATCHES);
        tokio::select! {
            () = listen(&shared, session, &connection, recv, &batches) => {}
            () = tell(&shared, &connection, send, outs, &batches) => {}
            () = contents::serve(&shared, &connection, read_only) => {}
            _ = connection.closed() => {}
        }
        Some(())
    };
    let joined = talk.await.is_some();
    shared.gate.ended(number, &connection);
    if joined {
        // A writer that is gone has forgotten the session already.
        let _ = shared.inputs.send(Input::Left(session)).await;
    }
}

/// Passes on what the client says.
async fn listen(shared: &Shared, session: SessionId, connection: &Connection, mut recv: RecvStream, batches: &Semaphore) {
    let code = loop {
        let input = match recv.recv::<ToHub>().await {
            Ok(Some(ToHub::Propose { batch, groups })) => {
                match batches.acquire().await {
                    Ok(permit) => permit.forget(),
                    Err(_) => break CloseCode::Restarting,
                }
                Input::Propose { session, batch, groups }
            }
            Ok(Some(ToHub::Ack { cursor, held })) => Input::Ack { session, cursor, held },
            Ok(None) => break CloseCode::Bye,
            Err(RecvError::Closed(_)) => return,
            Err(error) => {
                tracing::info!(peer = %connection.peer(), %error, "a client that does not keep the protocol");
                break CloseCode::Protocol;
            }
        };
        if shared.inputs.send(input).await.is_err() {
            break CloseCode::Restarting;
        }
    };
    connection.close(code);
}

/// Passes on what the writer says.
async fn tell(
    shared: &Shared,
    connection: &Connection,
    mut send: SendStream,
    mut outs: mpsc::UnboundedReceiver<Out>,
    batches: &Semaphore,
) {
    let code = loop {
        let sent = match outs.recv().await {
            None => break CloseCode::Restarting,
            Some(Out::Close(code)) => break code,
            Some(Out::Welcome(welcome)) => send.send(&*welcome).await,
            Some(Out::Message(mut message, replaced)) => {
                enrich(shared, &mut message, replaced).await;
                let sent = send.send(&message).await;
                if let ToClient::Verdicts { .. } = message {
                    batches.add_permits(1);
                }
                sent
            }
        };
        if let Err(error) = sent {
            tracing::debug!(peer = %connection.peer(), %error, "control stream");
            break CloseCode::Protocol;
        }
    };
    connection.close(code);
}

/// Lets small deltas travel along with their records.
async fn enrich(shared: &Shared, message: &mut ToClient, replaced: Vec<Option<Hash>>) {
    let ToClient::Records { records, .. } = message else { return };
    for (sent, replaced) in records.iter_mut().zip(replaced) {
        let new = sent.record.change.content.as_ref().and_then(crate::model::Content::blob);
        if let (Some(from), Some(to)) = (replaced, new) {
            sent.delta = shared.riding_delta(from, to).await;
        }
    }
}
