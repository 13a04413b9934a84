import { PATH_CASES } from './cases/paths.ts'
import { HOST_CASES, LONG_TARGET_CASES, REWRITE_CASES, TARGET_CASES } from './cases/targets.ts'
import { playTable } from './suite.ts'

playTable('paths', [...PATH_CASES, ...TARGET_CASES, ...REWRITE_CASES, ...HOST_CASES, ...LONG_TARGET_CASES])
