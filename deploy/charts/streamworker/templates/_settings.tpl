{{/* What holds for each worker and each pod: the values, laid over one another. What gives a table gives it as JSON. */}}

{{/* Tables laid over one another, the last one on top, as JSON. Unlike mergeOverwrite, 0, false and "" count, and null takes away. */}}
{{- define "streamworker.merged" -}}
{{- $merged := dict -}}
{{- range $table := . -}}
{{- range $key, $value := $table -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $merged $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $merged $key)) -}}
{{- $_ := set $merged $key (include "streamworker.merged" (list (get $merged $key) $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end -}}

{{/* What holds for a worker: (dict "root" $ "name" "orders"), as JSON. */}}
{{- define "streamworker.worker" -}}
{{- include "streamworker.merged" (list .root.Values.workerDefaults (get .root.Values.workers .name | default dict)) -}}
{{- end -}}

{{/* What holds for a pod that is no worker: (dict "root" $ "pod" .Values.console.pod), as JSON. */}}
{{- define "streamworker.podSettings" -}}
{{- $shared := omit .root.Values.workerDefaults "resources" "topologySpreadConstraints" "initContainers" "sidecars" "podLabels" "podAnnotations" -}}
{{- include "streamworker.merged" (list $shared .pod) -}}
{{- end -}}

{{/* The image: (list .Values.image worker.image canary.image), what is said last goes first. A tag takes an earlier digest away. */}}
{{- define "streamworker.image" -}}
{{- $image := dict "repository" "" "tag" "" "digest" "" -}}
{{- range .images -}}
{{- if .repository }}{{- $_ := set $image "repository" .repository -}}{{- end -}}
{{- if .tag }}{{- $_ := set $image "tag" .tag -}}{{- $_ := set $image "digest" "" -}}{{- end -}}
{{- if .digest }}{{- $_ := set $image "digest" .digest -}}{{- end -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The port for probes and metrics, as a number; the default is the worker's own. */}}
{{- define "streamworker.httpPort" -}}
{{- dig "http" "port" 8080.0 .Values.config | printf "%.0f" -}}
{{- end -}}

{{/* The groups of the workers, each once, as JSON. */}}
{{- define "streamworker.groups" -}}
{{- $groups := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson -}}
{{- if $worker.group }}{{- $groups = append $groups $worker.group -}}{{- end -}}
{{- end -}}
{{- dict "groups" (uniq $groups) | toJson -}}
{{- end -}}

{{- define "streamworker.lagObserved" -}}
{{- $asked := list .Values.rules.enabled -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson -}}
{{- $asked = append $asked (eq $worker.autoscaling.mode "hpa") -}}
{{- end -}}
{{- if kindIs "bool" .Values.lagObserver.enabled -}}
{{- ternary "true" "" .Values.lagObserver.enabled -}}
{{- else -}}
{{- ternary "true" "" (has true $asked) -}}
{{- end -}}
{{- end -}}
