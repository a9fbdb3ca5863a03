//! The one file that names `rustls`: TLS 1.3 with raw public keys (RFC 7250) on both sides.
//!
//! The verifiers ask two things only: is this the 44 bytes of an Ed25519 key, and does the peer hold its private half. Which keys are
//! let in is decided after the handshake and before any stream, by whoever accepts the connection. Resumption and early data are off
//! on both sides, because either would let a revoked key in without any verifier being asked.

use super::Identity;
use super::NetError;
use crate::model::PublicKey;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::ServerConfig;
use rustls::SignatureScheme;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::UnixTime;
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// The application protocol of clients and hubs.
pub(super) const ALPN: &[u8] = b"syncfs/1";

/// What an [`Identity`] keeps: the key in the form in which TLS presents it.
pub(super) type Key = Arc<CertifiedKey>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn key_of(cert: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<PublicKey, Error> {
    if !intermediates.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    PublicKey::from_spki(cert).map_err(|_| CertificateError::BadEncoding.into())
}

/// The key pair in PKCS#8 DER and its public half.
pub(super) fn load(pkcs8: &[u8]) -> Result<(Key, PublicKey), NetError> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
    let signer = provider().key_provider.load_private_key(der).map_err(|_| NetError::Identity)?;
    let spki = signer.public_key().ok_or(NetError::Identity)?.as_ref().to_vec();
    let public = PublicKey::from_spki(&spki).map_err(|_| NetError::Identity)?;
    Ok((Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)), public))
}

fn possession(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(cert.as_ref()), signed, algorithms)
}

fn not_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".into()))
}

/// Which hub keys a client accepts, and which one it was shown.
#[derive(Debug)]
pub(super) struct PinHub {
    /// `None`: any key, to show it to a person.
    pins: Option<Vec<PublicKey>>,
    shown: Mutex<Option<PublicKey>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinHub {
    pub(super) fn new(pins: Option<Vec<PublicKey>>) -> Arc<Self> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(Self { pins, shown: Mutex::new(None), algorithms })
    }

    /// The key that the hub presented, whether it was accepted or not.
    pub(super) fn shown(&self) -> Option<PublicKey> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accepts(&self, key: &PublicKey) -> bool {
        self.pins.as_ref().is_none_or(|pins| pins.contains(key))
    }

    pub(super) fn pins(&self) -> &[PublicKey] {
        self.pins.as_deref().unwrap_or_default()
    }

    /// The server name to ask for: a pseudonym of the wanted hub key, so that a hub can serve two keys while one replaces the other.
    pub(super) fn server_name(&self) -> String {
        let wanted = self.pins.as_ref().and_then(|pins| pins.first());
        let label = wanted.map_or_else(|| "any".into(), |key| data_encoding::HEXLOWER.encode(&key.as_bytes()[..8]));
        format!("{label}.syncfs.invalid")
    }
}

impl ServerCertVerifier for PinHub {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = key_of(cert, intermediates)?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        if self.accepts(&key) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Any client that holds the private half of the key it shows.
#[derive(Debug)]
struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(cert, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        possession(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn hub_tls(identity: &Identity, alpn: &[u8]) -> Result<ServerConfig, NetError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| NetError::Tls(error.to_string()))?
        .with_client_cert_verifier(Arc::new(AnyClient { algorithms }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&identity.key))));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

fn client_tls(identity: &Identity, hub: Arc<PinHub>, alpn: &[u8]) -> Result<ClientConfig, NetError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| NetError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(hub)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&identity.key))));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The hub's side of QUIC's handshake.
pub(super) fn hub_config(identity: &Identity) -> Result<quinn::ServerConfig, NetError> {
    let crypto = QuicServerConfig::try_from(hub_tls(identity, ALPN)?).map_err(|error| NetError::Tls(error.to_string()))?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(crypto)))
}

/// A client's side of QUIC's handshake.
pub(super) fn client_config(identity: &Identity, hub: Arc<PinHub>, alpn: &[u8]) -> Result<quinn::ClientConfig, NetError> {
    let crypto =
        QuicClientConfig::try_from(client_tls(identity, hub, alpn)?).map_err(|error| NetError::Tls(error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

/// The key whose private half the peer of an established connection has proven to hold.
pub(super) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PublicKey::from_spki(identity.first()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::ClientConnection;
    use rustls::HandshakeKind;
    use rustls::NamedGroup;
    use rustls::ServerConnection;

    fn identity() -> Identity {
        Identity::ephemeral().expect("identity")
    }

    /// Carries what one side has to say to the other until both are done; the first error of either.
    fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("into memory");
            server.read_tls(&mut wire.as_slice()).expect("from memory");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("into memory");
            client.read_tls(&mut wire.as_slice()).expect("from memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn pair(client: ClientConfig, hub: &Identity) -> (ClientConnection, ServerConnection) {
        let name = ServerName::try_from("any.syncfs.invalid").expect("a name");
        let server = ServerConnection::new(Arc::new(hub_tls(hub, ALPN).expect("config"))).expect("server");
        (ClientConnection::new(Arc::new(client), name).expect("client"), server)
    }

    /// Both sides agree on the key exchange that a future quantum computer does not break.
    #[test]
    fn key_exchange_is_post_quantum() {
        let hub = identity();
        let pin = PinHub::new(Some(vec![hub.public()]));
        let (mut client, mut server) = pair(client_tls(&identity(), pin, ALPN).expect("config"), &hub);
        shake(&mut client, &mut server).expect("handshake");
        let group = client.negotiated_key_exchange_group().expect("a group").name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
    }

    /// A client gets no ticket, and its next connection proves the key again: nothing lets a revoked key in unseen.
    #[test]
    fn nothing_is_resumed() {
        let hub = identity();
        let pin = PinHub::new(Some(vec![hub.public()]));
        let config = client_tls(&identity(), pin, ALPN).expect("config");
        for _ in 0..2 {
            let (mut client, mut server) = pair(config.clone(), &hub);
            shake(&mut client, &mut server).expect("handshake");
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(client.tls13_tickets_received(), 0);
        }
    }

    /// A client that shows no key, or wants X.509, does not get through the handshake.
    #[test]
    fn client_without_a_raw_key_is_refused() {
        let hub = identity();
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(PinHub::new(None));
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let (mut client, mut server) = pair(config, &hub);
        shake(&mut client, &mut server).expect_err("refused");
    }
}
