//! Who a registry takes us for.

use rbuild_oci::Reference;
use reqwest::{Method, StatusCode};

use super::auth::Access;
use super::client::{Call, Failure, Target, at_registry};
use super::{RegistryClient, RegistryError, RegistryErrorKind};

/// What a registry made of the configured login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It accepted the login.
    LoggedIn,
    /// It wants to know who is asking; there is no login, and it has some rights for everybody.
    Anonymous,
    /// It did not ask, so nothing is known of the login.
    NotAsked,
}

impl RegistryClient {
    /// Asks the registry of `of` whether it accepts the configured login, without asking for any repository.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::LoginRefused`] when it does not.
    pub async fn standing(&self, of: &Reference) -> Result<Standing, RegistryError> {
        let mut retries = self.retries();
        loop {
            match self.try_standing(of).await {
                Ok(standing) => return Ok(standing),
                Err(failure) => {
                    retries.wait(failure).await.map_err(|kind| at_registry(of, kind))?;
                }
            }
        }
    }

    async fn try_standing(&self, of: &Reference) -> Result<Standing, Failure> {
        let call = Call::new(Method::GET, of, Access::Nothing, Target::Base);
        let (home, url) = self.address(&call)?;
        let response = self.send_once(&call, &url, None).await?;
        if response.status().is_success() {
            return Ok(Standing::NotAsked);
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return Err(self.refused(&call, response).await);
        }
        let refused = || {
            let registry = of.registry().to_owned();
            Failure::Final(RegistryErrorKind::LoginRefused { registry })
        };
        let authorization = match self.authorize(&call, &response, home.scheme() == "http").await {
            Ok(authorization) => authorization,
            Err(Failure::Final(RegistryErrorKind::Denied { .. })) => return Err(refused()),
            Err(failure) => return Err(failure),
        };
        let response = self.send_once(&call, &url, Some(&authorization)).await?;
        match response.status() {
            status if status.is_success() => match self.credential(of).await? {
                Some(_) => Ok(Standing::LoggedIn),
                None => Ok(Standing::Anonymous),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(refused()),
            _ => Err(self.refused(&call, response).await),
        }
    }
}
