// Package lambda is a client for the Lambda Cloud API (https://cloud.lambda.ai/api/v1), the service that rents GPU
// machines by the minute. It follows Lambda's OpenAPI document 1.10.0 and reads the newer optional fields where the
// service sends them. It covers every operation of that document but support tickets and fabric partitions.
//
//	key, err := lambda.ParseKey(os.Getenv("LAMBDA_API_KEY"))
//	if err != nil {
//		return err
//	}
//	client, err := lambda.New(key)
//	if err != nil {
//		return err
//	}
//	offers, err := client.InstanceTypes(ctx)
//
// # Errors
//
// Every failed call returns an [*Error]. Its Outcome says what the failure means for a call that changes something:
// [NothingHappened] is a proof, [MayHaveHappened] is everything else. A launch whose answer was lost may be a machine
// that is billed: look for it (by name, key name, tags) before asking again. The rules:
//
//   - Refused before a byte was written (a bad argument, a context that was already done, no connection): nothing happened.
//   - An answer with a 4xx status other than 408 and 429 and Lambda's JSON error envelope: nothing happened.
//   - All else may have happened: 408, 429, 5xx, a timeout, a reset, a page from a proxy in front of the API, an answer
//     that cannot be read, a launch that is answered by no id or by several.
//   - When an earlier attempt of the same call may have happened, a later refusal proves nothing.
//
// A 403 that is not JSON comes from the proxy in front of the API and says nothing about the key; [IsBadKey] is
// true only for Lambda's own answer.
//
// # Retries
//
// A call is repeated only where a repeat is harmless: every GET, [Client.Terminate], [Client.DeleteSSHKey],
// [Client.DeleteFilesystem] and [Client.DeleteFirewallRuleset]. It is repeated after a connection error, 408, 429, 5xx,
// the rate-limit page of the proxy, a provider's error and an answer that cannot be read; with exponential delays and
// jitter, not before Retry-After, until the context is done or [RetryPolicy] is used up. All other calls (launch,
// restart, rename, adding and generating keys, creating and changing anything) are sent at most once.
//
// # Limits
//
// Lambda allows about one request a second and one launch in 12 seconds for an account. Each request waits for its
// turn at the client's [Limiter]; terminate goes before launch, launch before other changes, these before reads.
// The default is a [Pacer] for this client alone: give all clients of an account one limiter, and processes that share
// an account one [Gate]. Reads that are the same are sent once and shared, and the list of types is kept for
// a few seconds.
//
// # Secrets
//
// The key, user data, private keys and the Jupyter token and URL of an instance are of type [Secret], which prints as
// "[redacted]" in every way that fmt, encoding/json and log/slog know. The key goes to the base URL's own
// host only: redirects are not followed, and plain HTTP is for loopback addresses.
//
// # What it does not do
//
// It keeps no state beyond a cache of seconds, knows no budget and never waits for an instance to become something.
package lambda
