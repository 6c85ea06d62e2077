package grpc

import "github.com/streamhouse/streamhouse/domain/mutant"

// Planted bugs, see package mutant. Tests of this package kill each; the first
// group is hunted in simulated runs with agents as well, where the others are rare or heal: a
// producer sends again what it heard nothing of.
const (
	mutantAnswerBeforeOutcome mutant.ID = "grpc-server-answers-before-the-outcome"
	mutantRefusalIsSuccess    mutant.ID = "grpc-client-refusal-taken-as-stored"
	mutantSettledTwice        mutant.ID = "grpc-client-late-answer-settles-again"
)

const (
	mutantDroppedAtBreak   = mutant.ID("grpc-client-drops-what-a-broken-stream-held")
	mutantOutcomeOfAnother = mutant.ID("grpc-server-outcome-of-another-batch")
	mutantLostIsDefinite   = mutant.ID("grpc-client-lost-answer-taken-as-not-stored")
	mutantCancelIsDefinite = mutant.ID("grpc-client-cancelled-taken-as-not-stored")
	mutantQueueOvertakes   = mutant.ID("grpc-client-queue-overtakes-what-was-lost")
	mutantCopiesReversed   = mutant.ID("grpc-client-hedges-in-the-wrong-order")
	mutantHedgesUnnumbered = mutant.ID("grpc-client-hedges-without-a-producer")
	mutantEffectRepeated   = mutant.ID("grpc-client-repeats-a-call-with-an-effect")
	mutantTokenInTheOpen   = mutant.ID("grpc-client-token-in-the-open")
	mutantBatchUnchecked   = mutant.ID("grpc-server-batch-unchecked")
	mutantRoomKept         = mutant.ID("grpc-server-room-not-given-back")
	mutantDrainNotTold     = mutant.ID("grpc-server-drain-not-told")
	mutantTopicUnchecked   = mutant.ID("grpc-server-topic-scope-unchecked")
	mutantScopeUnchecked   = mutant.ID("grpc-server-scope-unchecked")
	mutantFetchCuts        = mutant.ID("grpc-server-fetch-cuts-a-batch")
)
