//! The relay on monoio: io_uring, one thread.

use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::BUFFER_BYTES;

pub fn run(address: SocketAddr, upstream: SocketAddr) {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(1024).build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(address).expect("the port is free");
        while let Ok((client, _)) = listener.accept().await {
            monoio::spawn(relay(client, upstream));
        }
    });
}

async fn relay(client: TcpStream, upstream: SocketAddr) {
    let Ok(server) = TcpStream::connect_addr(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    monoio::spawn(copy(from_client, to_server));
    copy(from_server, to_client).await;
}

async fn copy(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRentExt) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (result, filled) = from.read(buffer).await;
        let Ok(1..) = result else { return };
        let (result, emptied) = to.write_all(filled).await;
        if result.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}
