//! A thread for a source that looks at files: a disk or a network file system may take its time, or
//! not answer at all, and holds up nothing else then. Knows nothing of files.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, thread};

use tokio::{runtime::Builder, sync::oneshot};

use super::{Error, Stats};

/// Runs `source` in a thread of its own. Dropping the future ends it as soon as it waits for
/// anything but a file.
pub(super) async fn run(
    name: Arc<str>,
    stats: Stats,
    source: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> Result<(), Error> {
    let failed = |source| Error::System { operation: "start a thread", source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let (told, ended) = oneshot::channel();
    let counters = stats.clone();
    let work = async move {
        let mut source = pin!(source);
        let watched = poll_fn(|context| {
            stats.at_work(Some(&name));
            let polled = source.as_mut().poll(context);
            stats.at_work(None);
            polled
        });
        tokio::select! {
            biased;
            _ = stopped => Ok(()),
            result = watched => result,
        }
    };
    thread::Builder::new()
        .name("source".to_owned())
        // nobody waits for it any more
        .spawn(move || drop(told.send(runtime.block_on(work))))
        .map_err(failed)?;
    let result = ended.await;
    drop(stop);
    result.unwrap_or_else(|_| {
        counters.at_work(None);
        Err(Error::Died)
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Poll};

    use super::*;

    /// One worker, which must not be the one that waits.
    #[tokio::test]
    async fn who_waits_for_a_disk_holds_nobody_up() {
        let (go, wait) = mpsc::channel::<()>();
        let hangs = async move {
            wait.recv().unwrap();
            Ok(())
        };
        let source = tokio::spawn(run("log".into(), Stats::default(), hangs));
        tokio::spawn(async move { go.send(()).unwrap() }).await.unwrap();
        source.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_fault_is_said() {
        let fails = poll_fn(|_| -> Poll<Result<(), Error>> { panic!("a fault, on purpose") });
        let error = run("log".into(), Stats::default(), fails).await.unwrap_err();
        assert!(matches!(error, Error::Died), "{error}");
    }
}
