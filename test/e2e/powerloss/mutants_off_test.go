//go:build !mutants

package powerloss_test

func setMutant(string) {}
