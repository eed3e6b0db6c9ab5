{{/* What scales a worker and how far: for KEDA and for the HPA. */}}

{{/* Where dead letters of a topic come back: (dict "topic" "orders" "group" "billing"). As the worker names it. */}}
{{- define "streamworker.replayTopic" -}}
{{- $name := regexReplaceAll "[^A-Za-z0-9._-]" (printf "%s.replay.%s" .topic .group) "_" -}}
{{- if gt (len $name) 249 -}}
{{- $end := printf ".%s.replay" (printf "%s\n%s" .topic .group | sha256sum | trunc 12) -}}
{{- $name = printf "%s%s" (trunc (sub 249 (len $end) | int) $name) $end -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* How many pods find a partition beside those of the canary. */}}
{{- define "streamworker.mostReplicas" -}}
{{- $canary := ternary (int .canary.replicas) 0 .canary.enabled -}}
{{- sub (div (int .partitions) (int .processes)) $canary -}}
{{- end -}}

{{- define "streamworker.maxReplicas" -}}
{{- .autoscaling.maxReplicas | int | default (include "streamworker.mostReplicas" . | int) -}}
{{- end -}}

{{- define "streamworker.scaleTargetRef" -}}
{{- merge (deepCopy .worker.autoscaling.scaleTargetRef) (dict "apiVersion" "apps/v1" "kind" .worker.kind "name" .name) | toYaml -}}
{{- end -}}

{{- define "streamworker.scaleBehavior" -}}
{{- $behavior := deepCopy .behavior -}}
{{- if not (kindIs "invalid" .tolerance) -}}
{{- range $direction := list "scaleUp" "scaleDown" -}}
{{- $_ := set $behavior $direction (set (get $behavior $direction | default dict) "tolerance" (toString $.tolerance)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $behavior -}}
{{- end -}}

{{/*
The topics that scale a worker, by the name of their trigger, as JSON: `lag`, `lag_replay`, then `lag_2` and so on. Retry topics are
left out: what waits there is not due, and more pods would wait as long.
*/}}
{{- define "streamworker.scaledTopics" -}}
{{- $topics := dict -}}
{{- range $index, $topic := .topics -}}
{{- $trigger := ternary "lag" (printf "lag_%d" (add1 $index)) (eq $index 0) -}}
{{- $_ := set $topics $trigger $topic -}}
{{- if $.autoscaling.replayTopics -}}
{{- $_ := set $topics (printf "%s_replay" $trigger) (include "streamworker.replayTopic" (dict "topic" $topic "group" $.group)) -}}
{{- end -}}
{{- end -}}
{{- toJson $topics -}}
{{- end -}}

{{/*
While the breaker of a sink is open, as many pods as there are; else what the largest trigger asks for, in records of lag, since a
formula stands for all triggers together.
*/}}
{{- define "streamworker.holdFormula" -}}
{{- $scaling := .worker.autoscaling -}}
{{- $threshold := int $scaling.lagThreshold -}}
{{- $asked := keys .topics | sortAlpha -}}
{{- if $scaling.busy.enabled -}}
{{- $asked = append $asked (printf "busy / %v * pods * %d" $scaling.busy.threshold $threshold) -}}
{{- end -}}
{{- range $number, $_ := $scaling.cron -}}
{{- $asked = append $asked (printf "cron_%d * %d" $number $threshold) -}}
{{- end -}}
{{- $most := ternary (first $asked) (printf "max(%s)" (join ", " $asked)) (eq (len $asked) 1) -}}
{{- printf "sink_open >= 0.5 ? pods * %d : %s" $threshold $most -}}
{{- end -}}

{{/* Where KEDA takes a group without offsets to begin: where the worker does. A moment is nearer to the beginning than to the end. */}}
{{- define "streamworker.offsetResetPolicy" -}}
{{- $start := dig "kafka" "start" "earliest" (include "streamworker.workerConfig" . | fromJson) -}}
{{- ternary "latest" "earliest" (eq $start "latest") -}}
{{- end -}}

{{/* What KEDA reads from the Secrets that the workers read; empty if there are none. */}}
{{- define "streamworker.kedaSecrets" -}}
{{- $references := list -}}
{{- $sasl := .Values.kafka.sasl -}}
{{- if $sasl.mechanism -}}
{{- $references = append $references (dict "parameter" "username" "name" $sasl.existingSecret "key" $sasl.usernameKey) -}}
{{- $references = append $references (dict "parameter" "password" "name" $sasl.existingSecret "key" $sasl.passwordKey) -}}
{{- end -}}
{{- $tls := .Values.kafka.tls -}}
{{- if and $tls.enabled $tls.existingSecret -}}
{{- range $parameter, $key := dict "ca" $tls.caKey "cert" $tls.certKey "key" $tls.keyKey "keyPassword" $tls.keyPasswordKey -}}
{{- if $key }}{{- $references = append $references (dict "parameter" $parameter "name" $tls.existingSecret "key" $key) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $references }}{{ toYaml $references }}{{ end -}}
{{- end -}}

{{/* How KEDA speaks to the brokers, as metadata of a trigger. */}}
{{- define "streamworker.kedaSecurity" -}}
{{- $kafka := .Values.kafka -}}
{{- $kinds := dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512" "OAUTHBEARER" "oauthbearer" -}}
{{- if $kafka.tls.enabled }}
tls: enable
{{- end }}
{{- with $kafka.sasl.mechanism }}
sasl: {{ get $kinds . }}
{{- end }}
{{- end -}}
