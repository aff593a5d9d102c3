//! The relay on glommio: io_uring, one thread.

use std::net::SocketAddr;

use futures_lite::io::split;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use crate::BUFFER_BYTES;

pub fn run(address: SocketAddr, upstream: SocketAddr) {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().expect("an executor");
    executor.run(async {
        let listener = TcpListener::bind(address).expect("the port is free");
        while let Ok(client) = listener.accept().await {
            glommio::spawn_local(relay(client, upstream)).detach();
        }
    });
}

async fn relay(client: TcpStream, upstream: SocketAddr) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
    glommio::spawn_local(copy(from_client, to_server)).detach();
    copy(from_server, to_client).await;
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
