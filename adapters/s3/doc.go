// Package s3 keeps segments as objects of an S3 bucket: Amazon's, or that of any
// server that speaks its protocol and honours If-None-Match.
//
// An object is created with If-None-Match: *, so the store itself decides which of
// several racing Puts wins, and with its CRC32C, which the server compares before it stores
// the object, keeps, and gives to Stat. Open proves with a probe that the bucket does all that.
//
// # What a failed Put or Delete means
//
//	what was seen                                        kind        because
//	no connection, name or credentials; the context      Transient   no byte of the request left
//	  ended before the request began                                 this process
//	a certificate that is not trusted                    Definite    the same, and it needs a change
//	412 PreconditionFailed (Put)                         Definite    ErrObjectExists
//	409 ConditionalRequestConflict, OperationAborted     Transient   another Put was under way; nothing
//	                                                                 landed. Put asks twice more first
//	409 with another code                                Definite    the key cannot be there
//	429                                                  Transient   refused before it was looked at
//	400 BadDigest, IncompleteBody, RequestTimeout,       Transient   the body did not arrive whole, and so
//	  XAmzContentChecksumMismatch                                    was not stored
//	403 RequestTimeTooSkewed                             Transient   refused; the next request is signed
//	                                                                 with the server's clock
//	500, 502, 503, 504, 507, every 5xx but 501; 408      Ambiguous   it may have been stored, or may be
//	  without a code                                                 yet by a server behind the answering
//	                                                                 one. SlowDown is no exception: MinIO
//	                                                                 says it when half of its disks have it
//	connection cut, no answer, an answer that cannot     Ambiguous   the answer may have been lost, not the
//	  be read, the context ended on the way                          request
//	200 without an ETag or with another checksum (Put)   Ambiguous   who answered is not sure to have stored it
//	307                                                  Transient   no redirect is followed; a new bucket
//	                                                                 of Amazon's answers so for a while
//	301, 302, 303, 308, other 4xx, 501                   Definite    wrong region, bucket, credentials, rights
//	404 NoSuchKey (Delete)                               success
//
// Calls that only read have no effect to be unsure of: what is not Definite is Transient
// for them. An answer that does not fit the question (another range, a length that does not
// add up, a body that ends early) is Transient too; only the server's own word that an object ends
// too early, or is not there, is taken as such.
//
// # Who retries
//
// The SDK does not: its retries would hide from the caller that an effect is in doubt.
// Put and Delete are sent once, save for the 409 above; the direct transport repeats them by kind,
// within its own budget. ReadRange, Stat and List, which it does not repeat, are tried
// readAttempts times with short pauses.
//
// # Time
//
// How long a call may take is its context's matter. Besides, a connection on which no
// byte moves for Config.StallTimeout is given up.
package s3
