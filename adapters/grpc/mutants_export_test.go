package grpc

import "github.com/streamhouse/streamhouse/domain/mutant"

// Mutants lists the planted bugs of this package, each with the test that kills
// it.
var Mutants = map[mutant.ID]string{
	mutantAnswerBeforeOutcome: "TestProduce_AnswersWhatBecameOfABatch",
	mutantOutcomeOfAnother:    "TestProduce_JudgesBatchesOneByOne",
	mutantRefusalIsSuccess:    "TestAccess_GoesByTopic",
	mutantDroppedAtBreak:      "TestClient_LeavesASilentAgent",
	mutantSettledTwice:        "TestHedge_RacesALateAnswerThroughAnotherAgent",
	mutantLostIsDefinite:      "TestClient_LeavesASilentAgent",
	mutantCancelIsDefinite:    "TestAppend_ThatIsCancelledIsWithdrawn",
	mutantQueueOvertakes:      "TestFail_GivesBackWhatFollowsInTheQueue",
	mutantCopiesReversed:      "TestHedge_KeepsTheOrder",
	mutantHedgesUnnumbered:    "TestHedge_LeavesBatchesWithoutAProducerAlone",
	mutantEffectRepeated:      "TestCall_WithAnEffectIsNotMadeAgain",
	mutantTokenInTheOpen:      "TestToken_LeavesTheMachineOnlySecured",
	mutantBatchUnchecked:      "TestProduce_HandsNoDamagedBatchOn",
	mutantRoomKept:            "TestAdmission_BoundsWhatIsHeld",
	mutantDrainNotTold:        "TestDrain_AnswersWhatItTook",
	mutantTopicUnchecked:      "TestAccess_GoesByTopic",
	mutantScopeUnchecked:      "TestAccess_GoesByScope",
	mutantFetchCuts:           "TestWhole_ReturnsWholeBatchesFromTheOffsetOn",
	mutantTailsQueue:          "TestLending_ServesTheEndOfTheLogWhileOthersAreFarBehind",
	mutantNoParts:             "TestBudget_ServesInTurnButForWhoHoldsItsPart",
}
