{{/* What the console is told, and how it is asked whether it is there. */}}

{{/* By connection only: it answers nobody who asks for another host than its own. */}}
{{- define "streamworker.consoleProbes" -}}
{{- $probe := dict "tcpSocket" (dict "port" "console") -}}
{{- dict
    "startupProbe" (merge (dict "periodSeconds" 5 "failureThreshold" 60) $probe)
    "livenessProbe" (merge (dict "periodSeconds" 10 "failureThreshold" 3) $probe)
    "readinessProbe" (merge (dict "periodSeconds" 5) $probe) | toJson -}}
{{- end -}}

{{/* Its configuration, as JSON: that of all, and where the workers are. */}}
{{- define "streamworker.consoleConfig" -}}
{{- $workers := printf "%s-workers.%s.svc:%s" (include "streamworker.fullname" .) .Release.Namespace (include "streamworker.httpPort" .) -}}
{{- include "streamworker.config" (dict "root" . "tables" (list (dict "console" (dict "workers" $workers)) .Values.console.config)) -}}
{{- end -}}

{{/* Those that its image has, as JSON: the handlers of the workers that run the same image. */}}
{{- define "streamworker.consoleHandlers" -}}
{{- $handlers := .Values.console.handlers -}}
{{- if not $handlers -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson -}}
{{- if not (or $worker.image.repository $worker.image.tag $worker.image.digest) }}{{- $handlers = concat $handlers $worker.handlers -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "handlers" (uniq $handlers) | toJson -}}
{{- end -}}
